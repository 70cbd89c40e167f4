//! Giving a directory and what root has put into it to the user that a daemon becomes.
//!
//! The directory may be that user's already, who could have prepared it while no daemon ran. So nothing is found by its
//! path: each directory is opened in the one above it, no symbolic link is followed, and a file changes hands only if it
//! is a plain one of root's without a second name elsewhere. What is neither stays as it is.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, fchown};

use crate::privileges::ServiceUser;

/// A state directory has one level of directories in it, or two.
const DEEPEST: u8 = 4;

/// Gives `directory`, which must be there, and the files of root in it to `user`.
pub fn hand_over(directory: &Path, user: &ServiceUser) -> io::Result<()> {
    let directory = open(directory, in_directory(), Mode::empty())?;
    hand_over_directory(directory, user, DEEPEST)
}

/// Gives `directory` alone, if it is root's.
pub fn hand_over_empty(directory: &Path, user: &ServiceUser) -> io::Result<()> {
    let directory = File::from(open(directory, in_directory(), Mode::empty())?);
    if directory.metadata()?.uid() == 0 {
        give(&directory, user)?;
    }
    Ok(())
}

fn in_directory() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

fn hand_over_directory(directory: OwnedFd, user: &ServiceUser, depth: u8) -> io::Result<()> {
    let directory = File::from(directory);
    if directory.metadata()?.uid() == 0 {
        give(&directory, user)?;
    }
    let mut listing = Dir::from_fd(directory.try_clone()?.into())?;
    for entry in listing.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            hand_over_entry(&directory, name, user, depth)?;
        }
    }
    Ok(())
}

fn hand_over_entry(directory: &File, name: &CStr, user: &ServiceUser, depth: u8) -> io::Result<()> {
    match openat(directory, name, in_directory(), Mode::empty()) {
        Ok(below) if depth > 0 => return hand_over_directory(below, user, depth - 1),
        Ok(_) => return Ok(()),
        Err(Errno::ENOTDIR | Errno::ELOOP) => {}
        Err(errno) => return Err(errno.into()),
    }
    // A pipe or a device must not keep us waiting.
    let plain = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = match openat(directory, name, plain, Mode::empty()) {
        Ok(file) => File::from(file),
        // A symbolic link, a socket, or gone.
        Err(Errno::ELOOP | Errno::ENXIO | Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let found = file.metadata()?;
    if found.is_file() && found.uid() == 0 && found.nlink() == 1 {
        give(&file, user)?;
    }
    Ok(())
}

fn give(file: &impl AsFd, user: &ServiceUser) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    Ok(fchown(file, Some(uid), Some(gid))?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::privileges::effective_uid;

    #[test]
    fn plain_files_of_root_change_hands_and_nothing_that_leads_elsewhere_does() {
        if effective_uid() != 0 {
            println!("skipped: only root can give files away");
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::create_dir_all(at("state/db/deep")).unwrap();
        fs::create_dir(at("other")).unwrap();
        for file in [
            "state/wg.key",
            "state/db/deep/log",
            "other/linked",
            "other/named",
            "state/his",
        ] {
            fs::write(at(file), "x").unwrap();
        }
        std::os::unix::fs::chown(at("state/his"), Some(7), Some(7)).unwrap();
        symlink(at("other/linked"), at("state/link")).unwrap();
        symlink(at("other"), at("state/linked-directory")).unwrap();
        fs::hard_link(at("other/named"), at("state/second-name")).unwrap();
        nix::unistd::mkfifo(&at("state/pipe"), Mode::from_bits_truncate(0o600)).unwrap();

        let user = ServiceUser {
            name: "service".into(),
            uid: 4321,
            gid: 4322,
        };
        hand_over(&at("state"), &user).unwrap();
        hand_over(&at("state"), &user).expect("a second time");
        let owner = |name: &str| fs::symlink_metadata(at(name)).unwrap().uid();
        for given in [
            "state",
            "state/wg.key",
            "state/db",
            "state/db/deep",
            "state/db/deep/log",
        ] {
            assert_eq!(owner(given), 4321, "{given}");
        }
        for kept in [
            "other",
            "other/linked",
            "other/named",
            "state/link",
            "state/second-name",
            "state/pipe",
        ] {
            assert_eq!(owner(kept), 0, "{kept}");
        }
        assert_eq!(owner("state/his"), 7);
        assert_eq!(fs::metadata(at("state/wg.key")).unwrap().gid(), 4322);
        assert!(hand_over(&at("state/link"), &user).is_err());
    }
}
