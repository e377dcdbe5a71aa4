// SPDX-License-Identifier: MIT OR Apache-2.0
//! Results: read, merged, compared, and shown.

mod browser;
mod chromium;
mod lines;
mod outcome;
mod sample;
