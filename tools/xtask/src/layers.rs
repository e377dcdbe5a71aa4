// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holds the direction of dependencies between the workspace's crates.
//!
//! What decides something depends on nothing that touches a machine; what touches the machine
//! does not decide. Development dependencies are free: a test may use what it likes.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process;

/// A part of the workspace whose crates follow the same rule.
struct Layer {
    name: &'static str,
    crates: &'static [&'static str],
    /// Crates of ours that it may use, besides its own layer's where `inside` says so.
    may_use: &'static [&'static str],
    inside: bool,
    /// Crates of others that it may use; `None`: any.
    others: Option<&'static [&'static str]>,
}

/// Everything that decides: no register, no lock, no logging.
const LOGIC: [&str; 13] = [
    "firebreak-syndrome",
    "firebreak-cper",
    "firebreak-contract",
    "firebreak-triage",
    "firebreak-ring",
    "firebreak-paging",
    "firebreak-vgic",
    "firebreak-vdev",
    "firebreak-vm",
    "firebreak-manifest",
    "firebreak-guestdt",
    "firebreak-wire",
    "firebreak-blackbox",
];

const LAYERS: [Layer; 13] = [
    Layer {
        name: "names and layouts",
        crates: &["firebreak-abi"],
        may_use: &[],
        inside: false,
        others: Some(&[]),
    },
    Layer {
        name: "logic",
        crates: &LOGIC,
        may_use: &["firebreak-abi"],
        inside: true,
        others: Some(&["heapless", "zerocopy", "fdt", "loom"]),
    },
    Layer {
        name: "drivers",
        crates: &["firebreak-drivers"],
        may_use: &["firebreak-abi"],
        inside: false,
        others: Some(&[]),
    },
    Layer {
        // Data for the tools: the hypervisor asks the devicetree.
        name: "boards",
        crates: &["firebreak-boards"],
        may_use: &[],
        inside: false,
        others: Some(&[]),
    },
    Layer {
        // Who is running, and what only task context may do: no register, so it is tested here.
        name: "context",
        crates: &["firebreak-context"],
        may_use: &[],
        inside: false,
        others: Some(&["spin"]),
    },
    Layer {
        // It carries out what logic worked out as values, and so knows those values' types.
        name: "arch",
        crates: &["firebreak-arch"],
        may_use: &[
            "firebreak-abi",
            "firebreak-ring",
            "firebreak-syndrome",
            "firebreak-paging",
            "firebreak-vgic",
            "firebreak-context",
        ],
        inside: false,
        others: Some(&["aarch64-cpu", "tock-registers"]),
    },
    Layer {
        name: "hypervisor",
        crates: &["firebreak-hypervisor"],
        may_use: &[
            "firebreak-abi",
            "firebreak-syndrome",
            "firebreak-cper",
            "firebreak-triage",
            "firebreak-ring",
            "firebreak-paging",
            "firebreak-vgic",
            "firebreak-vdev",
            "firebreak-vm",
            "firebreak-manifest",
            "firebreak-guestdt",
            "firebreak-wire",
            "firebreak-blackbox",
            "firebreak-context",
            "firebreak-arch",
            "firebreak-drivers",
        ],
        inside: false,
        others: Some(&[
            "aarch64-cpu",
            "tock-registers",
            "buddy_system_allocator",
            "spin",
            "heapless",
            "zerocopy",
        ]),
    },
    Layer {
        // It shares the contract with the hypervisor, and no other code that decides at EL2.
        name: "firmware",
        crates: &["firebreak-el3"],
        may_use: &[
            "firebreak-abi",
            "firebreak-syndrome",
            "firebreak-cper",
            "firebreak-contract",
            "firebreak-drivers",
        ],
        inside: false,
        others: Some(&["spin", "heapless"]),
    },
    Layer {
        name: "guest runtime",
        crates: &["firebreak-guest-rt"],
        may_use: &["firebreak-abi", "firebreak-drivers"],
        inside: false,
        others: Some(&[]),
    },
    Layer {
        // A guest must not know the hypervisor's code: it would share its mistakes.
        name: "guests",
        crates: &[
            "firebreak-guest-control",
            "firebreak-guest-victim",
            "firebreak-guest-prober",
            "firebreak-guest-touch",
            "firebreak-guest-cases",
            "firebreak-guest-sweep",
            "firebreak-agent",
        ],
        may_use: &["firebreak-abi", "firebreak-guest-rt"],
        inside: false,
        others: Some(&["fdt", "libc"]),
    },
    Layer {
        // It measures the hypervisor's queue by itself, besides what a guest can see.
        name: "measuring guest",
        crates: &["firebreak-guest-bench"],
        may_use: &["firebreak-abi", "firebreak-guest-rt", "firebreak-ring"],
        inside: false,
        others: Some(&[]),
    },
    Layer {
        name: "tools",
        crates: &[
            "firebreak-image",
            "firebreak-cli",
            "firebreak-qemu",
            "firebreak-report",
            "firebreak-campaign",
            "xtask",
        ],
        may_use: &with_boards(),
        inside: true,
        others: None,
    },
    Layer {
        name: "tests",
        crates: &["firebreak-tests-host", "firebreak-tests-qemu"],
        may_use: &with_tools(),
        inside: false,
        others: None,
    },
];

const fn with_boards() -> [&'static str; LOGIC.len() + 2] {
    let mut names = ["firebreak-abi"; LOGIC.len() + 2];
    let mut index = 0;
    while index < LOGIC.len() {
        names[index] = LOGIC[index];
        index += 1;
    }
    names[index] = "firebreak-boards";
    names
}

const fn with_tools() -> [&'static str; LOGIC.len() + 5] {
    let mut names = ["firebreak-abi"; LOGIC.len() + 5];
    let mut index = 0;
    while index < LOGIC.len() {
        names[index] = LOGIC[index];
        index += 1;
    }
    names[index] = "firebreak-image";
    names[index + 1] = "firebreak-qemu";
    names[index + 2] = "firebreak-report";
    names[index + 3] = "firebreak-campaign";
    names
}

/// Crates of others that one crate alone may use at EL2 or in a tool, with the reason.
const SOLE_USERS: [(&str, &[&str], &str); 1] = [(
    "fdt",
    &["firebreak-manifest", "firebreak-guest-prober"],
    "it panics on some blobs, and one module owns the work around that",
)];

/// What `cargo metadata` says.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

/// Checks the workspace as it is.
pub(crate) fn check() -> Result<()> {
    let args = ["metadata", "--format-version", "1", "--no-deps", "--locked"];
    let text = process::output(process::cargo().args(args))?;
    let metadata: Metadata = serde_json::from_str(&text).context("reading cargo's metadata")?;
    let wrong = violations(&metadata.packages);
    if !wrong.is_empty() {
        bail!(
            "dependencies point the wrong way:\n  {}",
            wrong.join("\n  ")
        );
    }
    Ok(())
}

fn violations(packages: &[Package]) -> Vec<String> {
    let ours = |name: &str| packages.iter().any(|package| package.name == name);
    let mut wrong = Vec::new();
    for package in packages {
        let user = package.name.as_str();
        let Some(layer) = LAYERS.iter().find(|layer| layer.crates.contains(&user)) else {
            wrong.push(format!(
                "{user} is in no layer: name it in tools/xtask/src/layers.rs"
            ));
            continue;
        };
        for used in package
            .dependencies
            .iter()
            .filter(|used| used.kind.as_deref() != Some("dev"))
        {
            let used = used.name.as_str();
            let allowed = if ours(used) {
                layer.may_use.contains(&used) || layer.inside && layer.crates.contains(&used)
            } else {
                layer.others.is_none_or(|others| others.contains(&used))
            };
            if !allowed {
                wrong.push(format!("{user} ({}) may not use {used}", layer.name));
            }
            for (sole, users, reason) in SOLE_USERS {
                if used == sole && !users.contains(&user) {
                    wrong.push(format!("{user} may not use {sole}: {reason}"));
                }
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependency = |(name, kind): &(&str, Option<&str>)| Dependency {
            name: (*name).to_owned(),
            kind: kind.map(str::to_owned),
        };
        Package {
            name: name.to_owned(),
            dependencies: dependencies.iter().map(dependency).collect(),
        }
    }

    #[test]
    fn this_workspace_keeps_its_layers() {
        check().unwrap();
    }

    #[test]
    fn wrong_directions_are_named() {
        let packages = [
            package("firebreak-abi", &[("firebreak-triage", None)]),
            package(
                "firebreak-triage",
                &[("firebreak-arch", None), ("spin", None)],
            ),
            package(
                "firebreak-arch",
                &[("firebreak-triage", Some("build")), ("aarch64-cpu", None)],
            ),
            package(
                "firebreak-guestdt",
                &[("fdt", None), ("firebreak-image", Some("dev"))],
            ),
            package(
                "firebreak-image",
                &[("firebreak-triage", None), ("anything", None)],
            ),
            package("firebreak-new", &[]),
        ];
        let wrong = violations(&packages).join("\n");
        for expected in [
            "firebreak-abi (names and layouts) may not use firebreak-triage",
            "firebreak-triage (logic) may not use firebreak-arch",
            "firebreak-triage (logic) may not use spin",
            "firebreak-arch (arch) may not use firebreak-triage",
            "firebreak-guestdt may not use fdt",
            "firebreak-new is in no layer",
        ] {
            assert!(wrong.contains(expected), "{expected} in {wrong}");
        }
        assert_eq!(wrong.lines().count(), 6, "{wrong}");
    }
}
