// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is built for which target, and why.

/// Packages that are built for one target.
pub(crate) struct Group {
    /// The target.
    pub(crate) triple: &'static str,
    /// Its packages; each is a binary of the same name.
    pub(crate) packages: &'static [&'static str],
    /// How the check of them is called.
    pub(crate) lint_name: &'static str,
}

/// EL2 and EL3: a guest's vector registers are live there, so the compiler must not touch them.
pub(crate) const PRIVILEGED: Group = Group {
    triple: "aarch64-unknown-none-softfloat",
    packages: &["firebreak-hypervisor", "firebreak-el3"],
    lint_name: "clippy: hypervisor and firmware",
};

/// Bare-metal guests own their registers.
pub(crate) const GUESTS: Group = Group {
    triple: "aarch64-unknown-none",
    packages: &[
        "firebreak-guest-control",
        "firebreak-guest-victim",
        "firebreak-guest-prober",
        "firebreak-guest-touch",
        "firebreak-guest-bench",
        "firebreak-guest-cases",
        "firebreak-guest-sweep",
    ],
    lint_name: "clippy: bare-metal guests",
};

/// A static program for Linux, linked without a C compiler.
pub(crate) const AGENT: Group = Group {
    triple: "aarch64-unknown-linux-musl",
    packages: &["firebreak-agent"],
    lint_name: "clippy: agent",
};

/// All groups.
pub(crate) const ALL: [Group; 3] = [PRIVILEGED, GUESTS, AGENT];
