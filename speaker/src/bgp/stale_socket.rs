//! Removal of a stale socket. A killed gobgpd leaves its socket file, at which the next gobgpd
//! cannot listen. Nothing in gobgpd's container could remove the file. The driver's task, gobgpd's
//! only client, owns the detector.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::{fs, io};

use tokio::net::UnixStream;
use tracing::info;

/// Identity of a socket file: the number of its inode, and the inode's change time in seconds and
/// nanoseconds. A later file may reuse the number.
type SocketFileId = (u64, i64, i64);

/// Detector of a socket file without a listener.
#[derive(Debug, Default)]
pub(super) struct StaleSocket {
    /// The socket file that accepted or refused the most recent connection attempt.
    known: Option<SocketFileId>,
}

impl StaleSocket {
    /// Records that gobgpd accepted a connection at the socket.
    pub(super) fn mark_alive(&mut self, path: &str) {
        self.known = file_id(path);
    }

    /// Removes the socket file if nothing listens there. The driver calls this while gobgpd is
    /// unavailable. The listener of a new socket file may not exist yet, so the file stays until
    /// the next call.
    pub(super) async fn remove_if_stale(&mut self, path: &str) {
        let answer = UnixStream::connect(path).await;
        if answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            self.remove_known(path);
        }
    }

    fn remove_known(&mut self, path: &str) {
        let found = file_id(path);
        if found.is_some() && found == self.known && fs::remove_file(path).is_ok() {
            info!(path, "removed the socket of a gobgpd that has stopped");
        }
        self.known = found;
    }
}

fn file_id(path: &str) -> Option<SocketFileId> {
    let found = fs::symlink_metadata(path).ok()?;
    found.file_type().is_socket().then(|| (found.ino(), found.ctime(), found.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn what_an_ended_daemon_left_is_removed_and_one_that_has_only_just_made_its_socket_keeps_it()
     {
        let folder = std::env::temp_dir().join(format!("ferrolb-leftover-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("gobgp.sock").display().to_string();
        let mut leftover = StaleSocket::default();
        leftover.remove_if_stale(&path).await;
        drop(UnixListener::bind(&path).unwrap());
        leftover.remove_if_stale(&path).await;
        assert!(fs::exists(&path).unwrap(), "seen for the first time");
        leftover.remove_if_stale(&path).await;
        assert!(!fs::exists(&path).unwrap(), "nobody came");
        let listening = UnixListener::bind(&path).unwrap();
        leftover.mark_alive(&path);
        leftover.remove_if_stale(&path).await;
        assert!(fs::exists(&path).unwrap(), "its owner is there");
        drop(listening);
        leftover.remove_if_stale(&path).await;
        assert!(!fs::exists(&path).unwrap(), "its owner has answered, and does no more");
        fs::write(&path, "no socket").unwrap();
        leftover.remove_if_stale(&path).await;
        leftover.remove_if_stale(&path).await;
        assert!(fs::exists(&path).unwrap(), "it is somebody's file");
        fs::remove_dir_all(&folder).unwrap();
    }
}
