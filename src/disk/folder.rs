//! What the two disks over a real folder share: names, flags, listing, and the verdict on a short read.
//!
//! All access is relative to a descriptor of the folder that stays open, so that the folder may be renamed
//! meanwhile, and `O_DIRECT` unless the file system turns out not to have it.

use super::OpenHow;
use crate::limits::PAGE_BYTES;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The most bytes of one read or write system call; the rest of a larger buffer is a continuation. The
/// kernel itself stops a page short of 2 GiB.
pub(super) const CALL_BYTES_MAX: usize = 1 << 30;

/// The permissions of a created file, less the process's umask.
pub(super) const FILE_MODE: Mode = Mode::from_raw_mode(0o666);

/// An open folder.
pub(super) struct Folder {
    fd: OwnedFd,
    direct: bool,
}

impl Folder {
    /// Opens an existing folder.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Folder { fd: rustix::fs::open(path, flags, Mode::empty())?, direct: true })
    }

    /// The flags with which a file is first tried.
    pub(super) fn flags(&self, how: OpenHow) -> OFlags {
        let mut flags = OFlags::CLOEXEC | if how.write { OFlags::RDWR } else { OFlags::RDONLY };
        flags.set(OFlags::DIRECT, self.direct);
        flags.set(OFlags::CREATE | OFlags::EXCL, how.create_new);
        flags.set(OFlags::DSYNC, how.durable);
        flags
    }

    /// Looks at a file opened with `flags` and answers its length. It must be a regular file. Remembers that
    /// the file system has no `O_DIRECT` where that is how it could be opened.
    pub(super) fn opened(&mut self, fd: BorrowedFd<'_>, flags: OFlags) -> Result<u64> {
        let stat = rustix::fs::fstat(fd)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(Error::new(ErrorKind::InvalidInput, "not a regular file"));
        }
        self.direct &= flags.contains(OFlags::DIRECT);
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// The regular files with their lengths.
    pub(super) fn list(&self) -> Result<Vec<(String, u64)>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd)? {
            let entry = entry?;
            // A name that is not UTF-8 cannot be one that this disk has given to a file.
            let Ok(name) = entry.file_name().to_str() else { continue };
            match rustix::fs::statat(&self.fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_file() => {
                    names.push((name.to_string(), u64::try_from(stat.st_size).unwrap_or(0)));
                }
                // Not a file; or removed since its entry was read.
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(names)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The flags to try after `flags` was answered by EINVAL, which is how a file system (an older tmpfs) says
/// that it has no `O_DIRECT`. It says so only after it has created the file, so `O_EXCL` has done its work
/// and must not be asked for again.
pub(super) fn flags_without_direct(flags: OFlags) -> Option<OFlags> {
    flags.contains(OFlags::DIRECT).then(|| flags.difference(OFlags::DIRECT | OFlags::EXCL))
}

/// Checks that a name is one of a file within the folder.
pub(super) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(Error::new(ErrorKind::InvalidInput, format!("{name:?} is not a plain file name")));
    }
    Ok(())
}

/// A checked name as the kernel wants it.
pub(super) fn c_name(name: &str) -> Result<CString> {
    check_name(name)?;
    Ok(CString::new(name)?)
}

/// Checks that a read or write stands on a page; that its buffer is whole pages holds by construction.
pub(super) fn check_offset(offset: u64) -> Result<()> {
    if !offset.is_multiple_of(PAGE_BYTES as u64) || offset > i64::MAX as u64 {
        return Err(Error::new(ErrorKind::InvalidInput, format!("offset {offset} is not that of a page")));
    }
    Ok(())
}

/// The error for a file number that is not open.
pub(super) fn not_open() -> Error {
    Errno::BADF.into()
}

/// Reserves by setting the length, where the file system has no `fallocate`. Never shortens.
pub(super) fn reserve_by_length(fd: BorrowedFd<'_>, bytes: u64) -> Result<()> {
    let length = u64::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or(0);
    if bytes > length {
        rustix::fs::ftruncate(fd, bytes)?;
    }
    Ok(())
}

/// Why a read that wanted the bytes up to `end` got no further: the file ends there, or else the device
/// failed to say more.
pub(super) fn short_read(fd: BorrowedFd<'_>, end: u64) -> Error {
    match rustix::fs::fstat(fd) {
        Ok(stat) if u64::try_from(stat.st_size).unwrap_or(0) < end => Error::new(
            ErrorKind::UnexpectedEof,
            format!("the file ends at byte {}, before {end}", stat.st_size),
        ),
        Ok(_) => Errno::IO.into(),
        Err(errno) => errno.into(),
    }
}
