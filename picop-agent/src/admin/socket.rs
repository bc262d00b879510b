//! The Unix socket.

use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

/// The socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another agent answers there.
    #[error("an agent answers at {0} already; give this one a socket of its own (`--admin-socket`)")]
    Taken(PathBuf),
    /// It cannot be made.
    #[error("cannot make the admin socket {path}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A listening socket that only its owner may connect to. Removed when dropped.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl AdminSocket {
    /// Makes it, in place of what an agent that was killed left there. Its directory is made as well, for the owner only;
    /// those above that are the operator's.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let io = |source| SocketError::Io { path: path.to_owned(), source };
        if UnixStream::connect(path).is_ok() {
            return Err(SocketError::Taken(path.to_owned()));
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(io(e)),
            _ => {}
        }
        // Nobody may connect before its mode is right, and nobody find a socket that is not there yet.
        let staged = dir.join(format!(".admin-{}.sock", std::process::id()));
        match fs::remove_file(&staged) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io(e)),
            _ => {}
        }
        let make = || {
            let listener = UnixListener::bind(&staged)?;
            fs::set_permissions(&staged, fs::Permissions::from_mode(0o600))?;
            fs::rename(&staged, path)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = make().map_err(io)?;
        Ok(Self { path: path.to_owned(), listener })
    }

    /// Another descriptor of it.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, socket = %self.path.display(), "cannot remove the admin socket");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_a_socket_and_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run").join("admin.sock");
        let socket = AdminSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(AdminSocket::bind(&path), Err(SocketError::Taken(_))));
        drop(socket);
        assert!(!path.exists());
        // One that was killed leaves it.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(AdminSocket::bind(&path).unwrap());
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
