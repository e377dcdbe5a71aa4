// SPDX-License-Identifier: MIT OR Apache-2.0
//! Life cycle and memory of partitions: exhaustive where that is possible, else against oracles.

mod backing;
mod frames;
mod history;
mod images;
mod memory;
mod owner;
mod psci;
mod restart;
mod retired;
