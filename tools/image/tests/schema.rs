// SPDX-License-Identifier: MIT OR Apache-2.0
//! The JSON Schema says of files what the reader says of them, as far as a schema can, and schema,
//! page and reader know the same fields.

use std::fs;
use std::path::{Path, PathBuf};

use firebreak_image::fields::{
    BOARD, DEVICE, Field, Form, NOT_YET, ON_ERROR, PARTITION, RANGE, RESTART, ROOT, SYSTEM,
};
use firebreak_image::{partition_file, schema};
use jsonschema::Validator;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn validator() -> Validator {
    jsonschema::draft202012::options()
        .should_validate_formats(false)
        .build(&schema())
        .unwrap()
}

/// Reads TOML as the JSON that an editor's validator sees; `None` if it is no TOML.
fn json(text: &str) -> Option<serde_json::Value> {
    let value: toml::Value = toml::from_str(text).ok()?;
    serde_json::to_value(value).ok()
}

#[test]
fn the_committed_schema_is_the_one_that_is_printed() {
    let path = root().join("docs/partition.schema.json");
    let printed = format!("{:#}\n", schema());
    if std::env::var_os("FIREBREAK_BLESS").is_some() {
        fs::write(&path, &printed).unwrap();
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    assert!(
        printed == committed,
        "docs/partition.schema.json is old: `firebreak schema > docs/partition.schema.json`"
    );
}

#[test]
fn every_valid_file_fits_the_schema() {
    let validator = validator();
    let mut files = vec![root().join("guest-images/demo/firebreak.toml")];
    for dir in ["tests/qemu/systems", "tests/corpus/manifest-good"] {
        for entry in fs::read_dir(root().join(dir)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|one| one == "toml") {
                files.push(path);
            }
        }
    }
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let value = json(&fs::read_to_string(&file).unwrap()).unwrap();
        if let Err(error) = validator.validate(&value) {
            panic!("{}: {error} at {}", file.display(), error.instance_path());
        }
    }
    let first = json(&partition_file("qemu-virt")).unwrap();
    assert!(validator.is_valid(&first));
}

#[test]
fn every_mistake_of_form_is_refused_by_the_schema_too() {
    let validator = validator();
    let corpus = root().join("tests/corpus/manifest-bad");
    let (mut refused, mut beyond) = (0, Vec::new());
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|one| one != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        match json(&text) {
            // No editor gets as far as the schema.
            None => refused += 1,
            Some(value) if !validator.is_valid(&value) => refused += 1,
            Some(_) => beyond.push(path.file_stem().unwrap().to_string_lossy().into_owned()),
        }
        // Keys and types are the schema's business without exception.
        let told = fs::read_to_string(path.with_extension("stderr")).unwrap();
        let of_form = ["unknown key", "not yet", "` must be ", " has no `"];
        let whole = text.contains("[[partition]]") || text.contains("[partition]");
        if whole && of_form.iter().any(|words| told.contains(words)) && !told.contains("board file")
        {
            let stem = path.file_stem().unwrap().to_string_lossy();
            assert!(!beyond.contains(&stem.into_owned()), "{}", path.display());
        }
    }
    assert!(refused >= 40, "{refused} refused, accepted: {beyond:?}");
}

fn each(fields: &'static [Field], visit: &mut impl FnMut(&'static Field)) {
    for field in fields {
        visit(field);
        match field.form {
            Form::Table(fields) | Form::Tables { fields, .. } => each(fields, visit),
            _ => {}
        }
    }
}

#[test]
fn every_field_is_on_the_page_and_in_the_schema_with_an_example_that_is_read() {
    let page = fs::read_to_string(root().join("docs/partitions.md")).unwrap();
    let printed = schema().to_string();
    let mut count = 0;
    each(&ROOT, &mut |field| {
        count += 1;
        let key = field.key;
        assert!(
            printed.contains(&format!("\"{key}\":")),
            "{key} in the schema"
        );
        assert!(
            page.contains(&format!("`{key}`"))
                || page.contains(&format!("[{key}]"))
                || page.contains(&format!(".{key}]")),
            "docs/partitions.md does not describe `{key}`"
        );
        if !field.property.is_empty() && !field.property.starts_with("firebreak,on-") {
            let property = field.property;
            assert!(
                page.contains(&format!("`{property}")),
                "{property} on the page"
            );
        }
        assert!(json(field.example).is_some(), "{}", field.example);
        assert!(!field.about.is_empty() && field.about.ends_with('.'));
    });
    let all = [
        SYSTEM.len(),
        PARTITION.len(),
        DEVICE.len(),
        RESTART.len(),
        ON_ERROR.len(),
        ROOT.len(),
    ];
    assert_eq!(count, all.iter().sum::<usize>());
    for field in BOARD.iter().chain(&RANGE) {
        assert!(
            page.contains(&format!("{} = ", field.key))
                || page.contains(&format!("[[{}]]", field.key))
        );
    }
    for word in &NOT_YET {
        assert!(
            page.contains(&format!("`{}`", word.key)),
            "{} on the page",
            word.key
        );
    }
}

/// Each example, put into a whole file, fits the schema: it shows what may be written.
#[test]
fn every_example_fits_the_schema() {
    let validator = validator();
    let whole = |partition: &str| {
        let mut keys = String::new();
        for field in PARTITION.iter().filter(|field| field.required) {
            if !partition.starts_with(&format!("{} = ", field.key)) {
                keys += &format!("{}\n", field.example);
            }
        }
        format!("[[partition]]\n{keys}{partition}\n")
    };
    for field in &PARTITION {
        let text = whole(field.example);
        assert!(validator.is_valid(&json(&text).unwrap()), "{text}");
    }
    for field in &RESTART {
        let text = whole(field.example);
        assert!(validator.is_valid(&json(&text).unwrap()), "{text}");
    }
    for field in &ON_ERROR {
        let text = format!("{}[partition.on_error]\n{}\n", whole(""), field.example);
        assert!(validator.is_valid(&json(&text).unwrap()), "{text}");
    }
    for field in &SYSTEM {
        let text = format!("[system]\n{}\n{}", field.example, whole(""));
        assert!(validator.is_valid(&json(&text).unwrap()), "{text}");
    }
}
