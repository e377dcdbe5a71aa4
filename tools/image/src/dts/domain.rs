// SPDX-License-Identifier: MIT OR Apache-2.0
//! A partition's node, property by property, and its modules.
//!
//! The words are those of the run-time binding, and those of Xen's that mean the same. Nothing
//! in a partition is ignored.

use firebreak_abi::PaRange;
use firebreak_manifest::config::property;

use super::devices;
use super::tree::{Node, Property};
use crate::diagnostic::{Problem, Source};
use crate::document::{At, Entry, Value, nearest, not_yet};
use crate::fields::{Field, Form, NOT_YET, NotYet, ON_ERROR, PARTITION, RESTART};

/// What says where a module's file is.
const FILE: &str = "firebreak,file";
/// What every node may have, and what a blob's tools add.
const PLAIN: [&str; 5] = [
    "compatible",
    "#address-cells",
    "#size-cells",
    "phandle",
    "linux,phandle",
];
/// Words of Xen's that ask for what Firebreak does anyway, if they have this value.
const GRANTED: [(&str, Granted); 3] = [
    ("trap-unmapped-accesses", Granted::Cell(1)),
    ("xen,enhanced", Granted::Text("disabled")),
    ("passthrough", Granted::Text("disabled")),
];
/// Words of Xen's that ask for what Firebreak does not do, with what to do instead.
const FOREIGN: [(&str, &str); 11] = [
    (
        "capabilities",
        "remove it: no partition controls the others; commands come by the UART (firebreak,control)",
    ),
    (
        "nr_spis",
        "remove it: a partition has the interrupts of its devices",
    ),
    ("max_grant_version", "remove it: there are no grants"),
    ("max_grant_frames", "remove it: there are no grants"),
    ("max_maptrack_frames", "remove it: there are no grants"),
    (
        "xen,domain-p2m-mem-mb",
        "remove it: translation tables are set aside by Firebreak",
    ),
    ("xen,sci_type", "remove it: no SCMI is mediated"),
    (
        "xen,enhanced",
        "set it to \"disabled\", or remove it: there are no paravirtual interfaces",
    ),
    ("sve", "remove it: SVE is hidden from guests"),
    (
        "trap-unmapped-accesses",
        "set it to <1>: such an access gets an external abort, as from hardware",
    ),
    ("v8r_el1_msa", "remove it: Firebreak is for the A profile"),
];

enum Granted {
    Cell(u32),
    Text(&'static str),
}

/// Finds a word that is kept for later.
pub(super) fn kept_for_later(word: &str) -> Option<&'static NotYet> {
    NOT_YET.iter().find(|one| one.properties.contains(&word))
}

/// Makes the error for a property that nobody knows.
pub(super) fn unknown(property: &Property, what: &str, known: &[&str], source: &Source) -> Problem {
    let remedy = match nearest(&property.name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("{what} may have: {}", known.join(", ")),
    };
    Problem::error(
        source,
        property.span.clone(),
        format!("{what} has no property `{}`", property.name),
        "unknown property",
        remedy,
    )
}

/// Turns a partition's node into a table.
pub(super) fn table(node: &Node, source: &Source, problems: &mut Vec<Problem>) -> Value {
    let mut name = node.name.split('@').next().unwrap_or_default().to_owned();
    if !node
        .compatible()
        .iter()
        .any(|word| word == "firebreak,domain")
    {
        // A tree that was written for Xen: its domains are called domU1 as a rule.
        name.make_ascii_lowercase();
    }
    let mut top = vec![said("name", Value::Text(name), node)];
    let (mut restart, mut on_error) = (Vec::new(), Vec::new());
    for property in &node.properties {
        match find(property, source) {
            Ok(None) => {}
            Ok(Some((part, field))) => {
                let table = match part {
                    Part::Top => &mut top,
                    Part::Restart => &mut restart,
                    Part::OnError => &mut on_error,
                };
                table.extend(entry(field, property, source, problems));
            }
            Err(problem) => problems.push(problem),
        }
    }
    if node.property(property::VPL011).is_none() {
        top.push(said("console", Value::Text("none".to_owned()), node));
    }
    match devices::entry(node, source) {
        Ok(entry) => top.extend(entry),
        Err(problem) => problems.push(problem),
    }
    let cells = Cells::of(node, source, problems);
    for child in &node.children {
        match module(child, cells, source) {
            Ok(entries) => add(&mut top, entries, child, source, problems),
            Err(problem) => problems.push(problem),
        }
    }
    top.push(said("restart", Value::Table(restart), node));
    top.push(said("on_error", Value::Table(on_error), node));
    Value::Table(top)
}

/// The table that a field of a partition belongs to.
#[derive(Clone, Copy)]
enum Part {
    Top,
    Restart,
    OnError,
}

/// Finds the field that a partition's property stands for; none if it says nothing.
fn find(property: &Property, source: &Source) -> Result<Option<(Part, &'static Field)>, Problem> {
    let name = property.name.as_str();
    if PLAIN.contains(&name) || devices::LISTS.contains(&name) || is_granted(property) {
        return Ok(None);
    }
    if name == property::IMAGE_RELATIVE {
        return Err(Problem::error(
            source,
            property.span.clone(),
            "`firebreak,image-relative` is for images that are built already",
            "not in a source file",
            "remove it, and name files by `firebreak,file`",
        ));
    }
    // What belongs into a module is no property of the partition.
    let fields: [(Part, &'static [Field]); 3] = [
        (Part::Top, &PARTITION),
        (Part::Restart, &RESTART),
        (Part::OnError, &ON_ERROR),
    ];
    let known = fields.into_iter().find_map(|(part, fields)| {
        let field = fields.iter().find(|one| one.property == name)?;
        (![FILE, "bootargs"].contains(&name)).then_some((part, field))
    });
    match known {
        Some(found) => Ok(Some(found)),
        None => Err(foreign(property, source)),
    }
}

/// Says something in the name of a node.
fn said(key: &str, value: Value, node: &Node) -> Entry {
    let span = node.span.clone();
    Entry {
        key: At {
            value: key.to_owned(),
            span: span.clone(),
        },
        value: At { value, span },
    }
}

fn add(
    top: &mut Vec<Entry>,
    entries: Vec<Entry>,
    child: &Node,
    source: &Source,
    problems: &mut Vec<Problem>,
) {
    for entry in entries {
        if top.iter().any(|one| one.key.value == entry.key.value) {
            problems.push(Problem::error(
                source,
                child.span.clone(),
                "a partition has one kernel and at most one RAM disk",
                "one too many",
                "remove one of the modules",
            ));
            return;
        }
        top.push(entry);
    }
}

fn is_granted(property: &Property) -> bool {
    GRANTED.iter().any(|(name, value)| {
        *name == property.name
            && match value {
                Granted::Cell(cell) => property.cells().as_deref() == Some(&[*cell]),
                Granted::Text(text) => property.string().as_deref() == Some(text),
            }
    })
}

/// Refuses a property by its name.
fn foreign(property: &Property, source: &Source) -> Problem {
    let name = property.name.as_str();
    if let Some(word) = kept_for_later(name) {
        let at = At {
            value: property.name.clone(),
            span: property.span.clone(),
        };
        return not_yet(source, &at, word);
    }
    if let Some((_, remedy)) = FOREIGN.iter().find(|(foreign, _)| *foreign == name) {
        let message = format!("`{name}` is not supported");
        return Problem::error(
            source,
            property.span.clone(),
            message,
            "not supported",
            *remedy,
        );
    }
    let known: Vec<_> = [PARTITION.as_slice(), &RESTART, &ON_ERROR]
        .iter()
        .flat_map(|fields| fields.iter())
        .map(|field| field.property)
        .filter(|name| !["", FILE, "bootargs"].contains(name))
        .collect();
    unknown(property, "a partition", &known, source)
}

/// Reads the value of a property as the field's form wants it.
pub(super) fn entry(
    field: &Field,
    property: &Property,
    source: &Source,
    problems: &mut Vec<Problem>,
) -> Option<Entry> {
    let (value, wanted) = value(field, property);
    let Some(value) = value else {
        problems.push(Problem::error(
            source,
            property.value_span.clone(),
            format!("`{}` must be {wanted}", property.name),
            "not of this form",
            format!("write {wanted}"),
        ));
        return None;
    };
    Some(Entry {
        key: At {
            value: field.key.to_owned(),
            span: property.span.clone(),
        },
        value: At {
            value,
            span: property.value_span.clone(),
        },
    })
}

fn value(field: &Field, property: &Property) -> (Option<Value>, &'static str) {
    let cell = || match property.cells()?.as_slice() {
        [one] => Some(*one),
        _ => None,
    };
    let bit = || cell().filter(|one| *one < 2);
    let text = |text: &str| Value::Text(text.to_owned());
    match field.form {
        Form::Word(_) if field.property == property::VPL011 => (Some(text("pl011")), ""),
        Form::Word(words) => (
            bit().and_then(|bit| Some(text(words.get(bit as usize)?))),
            "one cell, <0> or <1>",
        ),
        Form::Flag if [property::CONTROL, property::DIRECT_MAP].contains(&field.property) => (
            property.bytes().is_empty().then_some(Value::Flag(true)),
            "a property without a value",
        ),
        Form::Flag => (
            bit().map(|bit| Value::Flag(bit == 1)),
            "one cell, <0> or <1>",
        ),
        Form::Integer { .. } if field.property == property::MEMORY_BASE => (
            pairs(property)
                .and_then(|pairs| <[u64; 1]>::try_from(pairs).ok())
                .map(|[base]| Value::Integer(Ok(base))),
            "an address as two cells such as <0x0 0x60000000>",
        ),
        Form::Integer { .. } => (
            cell().map(|cell| Value::Integer(Ok(cell.into()))),
            "one cell such as <1>",
        ),
        Form::Size => (
            pairs(property)
                .and_then(|pairs| <[u64; 1]>::try_from(pairs).ok())
                .map(|[kib]| Value::Text(format!("{kib} KiB"))),
            "KiB as two cells such as <0x0 0x4000>",
        ),
        Form::Integers { .. } => (
            pairs(property).map(|pairs| {
                let one = |number| At {
                    value: Value::Integer(Ok(number)),
                    span: property.value_span.clone(),
                };
                Value::List(pairs.into_iter().map(one).collect())
            }),
            "two cells for each vCPU, its PE's affinity, such as <0x0 0x1>",
        ),
        Form::Text { .. } | Form::Name | Form::Reaction(_) => {
            (property.string().map(Value::Text), "one text in quotes")
        }
        Form::Table(_) | Form::Tables { .. } => (None, "nodes"),
    }
}

/// Reads numbers of two cells.
pub(super) fn pairs(property: &Property) -> Option<Vec<u64>> {
    let cells = property.cells()?;
    let (pairs, rest) = cells.as_chunks::<2>();
    let number = |[high, low]: &[u32; 2]| u64::from(*high) << 32 | u64::from(*low);
    rest.is_empty().then(|| pairs.iter().map(number).collect())
}

/// How many cells an address and a size have in the children's `reg`.
#[derive(Clone, Copy)]
struct Cells {
    address: usize,
    size: usize,
}

impl Cells {
    fn of(node: &Node, source: &Source, problems: &mut Vec<Problem>) -> Self {
        let mut count = |name: &str, default| {
            let Some(property) = node.property(name) else {
                return default;
            };
            match property.cells().as_deref() {
                Some([one @ (1 | 2)]) => *one as usize,
                _ => {
                    problems.push(Problem::error(
                        source,
                        property.value_span.clone(),
                        format!("`{name}` must be <1> or <2>"),
                        "not of this form",
                        "write <2>",
                    ));
                    default
                }
            }
        };
        // The specification's defaults (2.3.5).
        Self {
            address: count("#address-cells", 2),
            size: count("#size-cells", 1),
        }
    }
}

/// Reads a module into the fields that it stands for.
fn module(node: &Node, cells: Cells, source: &Source) -> Result<Vec<Entry>, Problem> {
    let compatible = node.compatible();
    let is = |word: &str| compatible.iter().any(|one| one == word);
    let key = match () {
        () if is("multiboot,kernel") => "image",
        () if is("multiboot,ramdisk") => "initramfs",
        () => return Err(no_module(node, &compatible, source)),
    };
    let mut entries = Vec::new();
    for property in &node.properties {
        if let Some((key, value)) = module_property(key, node, property, cells, source)? {
            entries.push((key, value, property));
        }
    }
    if let Some(child) = node.children.first() {
        return Err(Problem::error(
            source,
            child.span.clone(),
            format!("a module has no node `{}`", child.name),
            "unknown node",
            "remove it",
        ));
    }
    if !entries.iter().any(|(one, ..)| *one == key) {
        return Err(Problem::error(
            source,
            node.span.clone(),
            "this module is nowhere",
            "neither file nor address",
            "add `firebreak,file = \"path\";`, or `reg` with the address at which a bootloader puts it",
        ));
    }
    let entry = |(key, value, property): (&str, Value, &Property)| Entry {
        key: At {
            value: key.to_owned(),
            span: property.span.clone(),
        },
        value: At {
            value,
            span: property.value_span.clone(),
        },
    };
    Ok(entries.into_iter().map(entry).collect())
}

/// Reads one property of a module: the field that it stands for, if any, and its value.
fn module_property(
    key: &'static str,
    node: &Node,
    property: &Property,
    cells: Cells,
    source: &Source,
) -> Result<Option<(&'static str, Value)>, Problem> {
    let wrong = |message: &str, remedy: &str| {
        let span = property.span.clone();
        Err(Problem::error(source, span, message, "here", remedy))
    };
    let text = |field| {
        let text = property.string().map(|text| (field, Value::Text(text)));
        match text {
            Some(text) => Ok(Some(text)),
            None => wrong(
                &format!("`{}` must be one text", property.name),
                "put it in quotes",
            ),
        }
    };
    match property.name.as_str() {
        "bootargs" if key == "image" => text("cmdline"),
        "bootargs" => wrong(
            "`bootargs` belongs to the kernel",
            "move it to the kernel's module",
        ),
        FILE if node.property("reg").is_some() => wrong(
            "a module that is given as a file has no place of its own yet",
            "remove `reg`, and `firebreak build` puts it into the image; or remove \
             `firebreak,file`, and a bootloader puts it there",
        ),
        FILE => text(key),
        "reg" => match range(property, cells) {
            Some(range) => Ok(Some((key, Value::Loaded(range)))),
            None => wrong(
                "`reg` must be one range of memory",
                "write address and size in as many cells as #address-cells and #size-cells of \
                 the partition say",
            ),
        },
        name if PLAIN.contains(&name) => Ok(None),
        _ => {
            let known = [FILE, "reg", "bootargs", "compatible"];
            Err(unknown(property, "a module", &known, source))
        }
    }
}

fn range(property: &Property, cells: Cells) -> Option<PaRange> {
    let all = property.cells()?;
    let (address, size) = all.split_at_checked(cells.address)?;
    let number = |cells: &[u32]| {
        let add = |sum, cell: &u32| sum << 32 | u64::from(*cell);
        cells.iter().fold(0_u64, add)
    };
    let (start, len) = (number(address), number(size));
    let fits = size.len() == cells.size && len > 0 && start.checked_add(len).is_some();
    fits.then(|| PaRange::new(start, len))
}

fn no_module(node: &Node, compatible: &[String], source: &Source) -> Problem {
    let words = ["multiboot,kernel", "multiboot,ramdisk"];
    let word = compatible.first().map_or("", String::as_str);
    if let Some(later) = compatible.iter().find_map(|word| kept_for_later(word)) {
        let at = At {
            value: word.to_owned(),
            span: node.span.clone(),
        };
        return not_yet(source, &at, later);
    }
    let remedy = match word {
        "multiboot,device-tree" => {
            "remove it: the guest's devicetree is made by Firebreak".to_owned()
        }
        "xen,vcpu" => "remove it, and name the PE of each vCPU in `firebreak,mpidr`".to_owned(),
        "" => "add compatible = \"multiboot,kernel\" or \"multiboot,ramdisk\"".to_owned(),
        _ => match nearest(word, &words) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => "use \"multiboot,kernel\" or \"multiboot,ramdisk\"".to_owned(),
        },
    };
    Problem::error(
        source,
        node.span.clone(),
        format!("a partition has no node `{}`", node.name),
        "neither kernel nor RAM disk",
        remedy,
    )
}
