// SPDX-License-Identifier: MIT OR Apache-2.0
//! The threads that read a machine's serial lines into its log.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use crate::log::{Log, Record};
use crate::machine::{Error, Tap};
use crate::{Demux, FirmwareLine};

/// Starts a thread; it ends with what it reads.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(work).map(drop).map_err(|source| Error::Io {
        what: "starting a reader",
        source,
    })
}

/// Reads the line that hypervisor and guests share.
pub(crate) fn read_shared(
    mut stream: UnixStream,
    log: Arc<Log>,
    mut tap: Option<Tap>,
) -> Result<(), Error> {
    log.opened();
    spawn("shared-serial", move || {
        let mut demux = Demux::new();
        let mut buffer = [0; 4096];
        let mut items = Vec::new();
        loop {
            let len = match stream.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                len => len.unwrap_or(0),
            };
            demux.push(buffer.get(..len).unwrap_or(&[]), &mut items);
            if len == 0 {
                demux.finish(&mut items);
            }
            for item in items.drain(..) {
                if let Some(tap) = &mut tap {
                    tap(&item);
                }
                log.push_item(&item);
            }
            if len == 0 {
                break;
            }
        }
        log.closed();
    })
}

/// Reads the firmware's line.
pub(crate) fn read_secure(stream: UnixStream, log: Arc<Log>) -> Result<(), Error> {
    log.opened();
    spawn("secure-serial", move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .is_ok_and(|len| len != 0)
        {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\n', '\r']);
            log.push(match FirmwareLine::parse(text) {
                Some(line) => Record::Firmware(line),
                None => Record::SecurePlain(text.to_owned()),
            });
            line.clear();
        }
        log.closed();
    })
}
