// SPDX-License-Identifier: MIT OR Apache-2.0
//! The JSON Schema of a partition file, for editors: made of the table of fields.

use firebreak_manifest::config::MAX_NAME_LEN;
use firebreak_triage::{Class, Reaction};
use serde_json::{Map, Value, json};

use crate::fields::{Field, Form, ROOT};

/// Returns the schema (draft 2020-12) of a partition file in TOML.
///
/// It knows keys, forms and bounds. What takes the board, the files or two fields together is for
/// `firebreak check` alone.
pub fn schema() -> Value {
    let mut schema = table(&ROOT);
    if let Value::Object(object) = &mut schema {
        let head = [
            ("$schema", "https://json-schema.org/draft/2020-12/schema"),
            ("title", "Firebreak partition file"),
            (
                "description",
                "A Firebreak system: its partitions, what each may use, and what is done about \
                 hardware errors. `firebreak check` finds what this schema cannot.",
            ),
        ];
        for (key, value) in head {
            object.insert(key.to_owned(), json!(value));
        }
    }
    schema
}

fn table(fields: &[Field]) -> Value {
    let property = |field: &Field| {
        let mut property = form(field.form);
        property.insert("description".to_owned(), json!(field.about));
        // The table of fields writes defaults as JSON.
        if let Ok(default) = serde_json::from_str::<Value>(field.default) {
            property.insert("default".to_owned(), default);
        }
        (field.key.to_owned(), Value::Object(property))
    };
    let properties: Map<String, Value> = fields.iter().map(property).collect();
    let required: Vec<_> = fields
        .iter()
        .filter(|field| field.required)
        .map(|field| field.key)
        .collect();
    let mut table = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        table["required"] = json!(required);
    }
    table
}

fn form(form: Form) -> Map<String, Value> {
    let value = match form {
        Form::Text { most } => json!({ "type": "string", "maxLength": most }),
        Form::Name => {
            let more = MAX_NAME_LEN - 1;
            json!({ "type": "string", "pattern": format!("^[a-z][a-z0-9-]{{0,{more}}}$") })
        }
        Form::Word(words) => json!({ "enum": words }),
        Form::Flag => json!({ "type": "boolean" }),
        Form::Integer { least, most } => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Form::Integers { most } => json!({
            "type": "array",
            "items": { "type": "integer", "minimum": 0 },
            "minItems": 1,
            "maxItems": most,
            "uniqueItems": true,
        }),
        Form::Size => json!({ "type": "string", "pattern": "^\\s*[0-9_]+\\s*([KMGT]iB)\\s*$" }),
        Form::Reaction(class) => json!({ "type": "string", "pattern": reactions(class) }),
        Form::Table(fields) => table(fields),
        Form::Tables {
            fields,
            most,
            required,
        } => json!({
            "type": "array",
            "items": table(fields),
            "minItems": u8::from(required),
            "maxItems": most,
        }),
    };
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// Returns a pattern of the words that triage follows for a class.
fn reactions(class: Class) -> String {
    let words: Vec<_> = ["ignore", "log", "inject", "retire", "kill", "restart"]
        .iter()
        .filter(|word| Reaction::parse(word).is_ok_and(|reaction| reaction.check(class).is_ok()))
        .map(|word| match *word {
            // 25 bits, in hexadecimal or decimal digits.
            "inject" | "retire" => format!("{word}(:(0x0*[01]?[0-9a-fA-F]{{1,6}}|[0-9]{{1,8}}))?"),
            _ => (*word).to_owned(),
        })
        .collect();
    format!("^({})$", words.join("|"))
}
