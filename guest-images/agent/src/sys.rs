// SPDX-License-Identifier: MIT OR Apache-2.0
//! The few system calls of an init process, behind safe functions.
//!
//! Everything else in the agent is `unsafe`-free; `main` and `watchdog` call this.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// How the machine is to be left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// PSCI SYSTEM_RESET, by way of the kernel.
    Reboot,
    /// PSCI SYSTEM_OFF, by way of the kernel.
    PowerOff,
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Mounts a pseudo file system. A mount that exists already is no error.
pub(crate) fn mount(kind: &CStr, target: &CStr) -> io::Result<()> {
    // SAFETY: all pointers are to NUL-terminated strings that outlive the call; data may be null.
    let result = unsafe {
        libc::mount(
            kind.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            0,
            std::ptr::null(),
        )
    };
    match check(result) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        other => other.map(drop),
    }
}

/// Mounts a block device.
pub(crate) fn mount_device(device: &CStr, kind: &CStr, target: &CStr) -> io::Result<()> {
    // SAFETY: all pointers are to NUL-terminated strings that outlive the call; data may be null.
    check(unsafe {
        libc::mount(
            device.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            0,
            std::ptr::null(),
        )
    })
    .map(drop)
}

/// Unmounts; all that was written is on the device then.
pub(crate) fn unmount(target: &CStr) -> io::Result<()> {
    // SAFETY: takes a NUL-terminated string and a number.
    check(unsafe { libc::umount2(target.as_ptr(), 0) }).map(drop)
}

/// Makes `file` the standard input, output and error of this process.
pub(crate) fn become_stdio(file: &impl AsRawFd) -> io::Result<()> {
    for target in 0..=2 {
        if file.as_raw_fd() != target {
            // SAFETY: dup2 takes two numbers; Rust's standard streams are these descriptors and
            // do not own them.
            check(unsafe { libc::dup2(file.as_raw_fd(), target) })?;
        }
    }
    Ok(())
}

/// Loads a kernel module. One that is loaded already is no error.
pub(crate) fn load_module(file: &impl AsRawFd) -> io::Result<()> {
    let no_parameters = c"";
    // SAFETY: finit_module(fd, const char *params, int flags) reads a NUL-terminated string.
    let result = unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            file.as_raw_fd(),
            no_parameters.as_ptr(),
            0,
        )
    };
    if result == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        error => Err(error),
    }
}

/// Sets a watchdog's timeout and returns the one that the driver chose, in seconds.
pub(crate) fn set_watchdog_timeout(watchdog: &impl AsRawFd, seconds: i32) -> io::Result<i32> {
    /// `_IOWR('W', 6, int)` of `linux/watchdog.h`.
    const WDIOC_SETTIMEOUT: libc::Ioctl = libc::_IOWR::<libc::c_int>('W' as u32, 6);
    let mut chosen = seconds;
    // SAFETY: this ioctl reads and writes one int, and `chosen` is one.
    check(unsafe { libc::ioctl(watchdog.as_raw_fd(), WDIOC_SETTIMEOUT, &raw mut chosen) })?;
    Ok(chosen)
}

/// Collects a child that has ended, as the first process must. Returns its number and the signal
/// that ended it, 0 for none; `None` when there is no such child.
pub(crate) fn reap_child() -> Option<(libc::pid_t, i32)> {
    let mut status = 0;
    // SAFETY: the call writes one int, and `status` is one.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then(|| {
        if libc::WIFSIGNALED(status) {
            (pid, libc::WTERMSIG(status))
        } else {
            (pid, 0)
        }
    })
}

/// Makes a child process that does `work` and nothing else; returns its number.
pub(crate) fn spawn(work: fn() -> !) -> io::Result<libc::pid_t> {
    // SAFETY: this process has one thread, so the child's copy of it is whole.
    match check(unsafe { libc::fork() })? {
        0 => {
            // Rust's own handlers, which look for an overflown stack, would go on behind a signal.
            for signal in [libc::SIGBUS, libc::SIGSEGV] {
                // SAFETY: takes two numbers; the default action runs no code of this process.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
            work()
        }
        child => Ok(child),
    }
}

/// Ends a child.
pub(crate) fn kill(child: libc::pid_t) {
    // SAFETY: takes two numbers; a child that is gone already is an error that means nothing.
    unsafe { libc::kill(child, libc::SIGKILL) };
}

/// Waits until `fd` has input or `limit` has passed. Returns whether it has input.
pub(crate) fn wait_for_input(fd: BorrowedFd<'_>, limit: Duration) -> bool {
    let mut set = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // One millisecond more, as a wait that is cut short would only be repeated.
    let limit_ms = i32::try_from(limit.as_millis().saturating_add(1)).unwrap_or(i32::MAX);
    // SAFETY: `set` is one pollfd, and the count says one.
    unsafe { libc::poll(&raw mut set, 1, limit_ms) > 0 && set.revents & libc::POLLIN != 0 }
}

/// Ends this machine. Returns only when the kernel refuses.
pub(crate) fn leave(exit: Exit) {
    let command = match exit {
        Exit::Reboot => libc::LINUX_REBOOT_CMD_RESTART,
        Exit::PowerOff => libc::LINUX_REBOOT_CMD_POWER_OFF,
    };
    // SAFETY: the call takes a number; there is no disk whose data could be lost.
    unsafe { libc::reboot(command) };
}

/// Returns the kernel's release, such as `6.1.0-56-cloud-arm64`.
pub(crate) fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}
