//! Codec of ESR, DISR and VSESR syndromes: the only place that knows ISS bits.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
