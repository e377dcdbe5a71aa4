//! What goes over the shared serial line: events as JSON text sequences, guests' consoles escaped.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
