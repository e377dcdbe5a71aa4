//! EL1 runtime of the bare-metal guests.
#![no_std]
