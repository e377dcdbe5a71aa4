//! What touches a system register at EL2: vectors, context, MMU, GICv3, timer, PSCI.
#![cfg_attr(not(test), no_std)]
