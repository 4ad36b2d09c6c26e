//! What the process is beside a proxy: who it runs as, in the background or not, and its pid file.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use nix::unistd::{User, daemon, getuid, initgroups, setgid, setuid};

/// Becomes another user of the system, with that user's groups. Nothing where it is that user already.
///
/// # Errors
/// If there is no such user, or the process may not.
pub fn become_user(name: &str) -> io::Result<()> {
    let user = User::from_name(name)?
        .ok_or_else(|| io::Error::other(format!("there is no user {name}")))?;
    if user.uid == getuid() {
        return Ok(());
    }
    let c_name = std::ffi::CString::new(name)?;
    initgroups(&c_name, user.gid)?;
    setgid(user.gid)?;
    setuid(user.uid)?;
    Ok(())
}

/// Leaves the terminal and goes on in the background. Only before the first thread is started.
///
/// # Errors
/// If the system does not let us.
pub fn go_to_background() -> io::Result<()> {
    // The folder stays: relative names of files start there, also on reload.
    daemon(true, false)?;
    Ok(())
}

/// A pid file, gone when this is.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// Whether one can be written: none is there, or it is of a process that has gone.
    ///
    /// # Errors
    /// If the one that is there is of a process that runs, or of nobody knows whom.
    pub fn check(path: &Path) -> io::Result<()> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let process: Option<u32> = text.trim().parse().ok();
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            return fs::remove_file(path);
        }
        Err(io::Error::other(format!(
            "pidfile '{}' exists, another instance running?",
            path.display()
        )))
    }

    /// Writes the process's id.
    ///
    /// # Errors
    /// If the file is there meanwhile, or can't be written.
    pub fn write(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let pid_file = Self(path.to_owned());
        writeln!(file, "{}", std::process::id())?;
        Ok(pid_file)
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Somebody may have been faster.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_there_while_its_process_runs() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pgspan.pid");
        PidFile::check(&path).expect("none is there");
        let file = PidFile::write(&path).expect("written");
        let refused = PidFile::check(&path).expect_err("this process runs");
        assert!(refused.to_string().contains("another instance running?"));
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_pid_file_of_a_process_that_has_gone_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pgspan.pid");
        // No process has so large an id.
        fs::write(&path, "4194999\n").expect("written");
        PidFile::check(&path).expect("it has gone");
        assert!(!path.exists());
        fs::write(&path, "nobody\n").expect("written");
        assert!(PidFile::check(&path).is_err());
    }
}
