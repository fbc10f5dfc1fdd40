//! The bearer token that a file holds and the kubelet replaces. Each client has one; it reads the
//! file for every request, which takes microseconds.
//!
//! kube's own token file waits for the wall clock to pass a minute before it reads again: a wall
//! clock that is set back by an hour would keep a token in use for an hour after the kubelet
//! replaced it.

use std::path::{Path, PathBuf};

use hyper::Request;
use hyper::header::{AUTHORIZATION, HeaderValue};
use kube::client::AuthError;

/// A file with a bearer token (RFC 6750, section 2.1), and what it held last.
#[derive(Clone)]
pub(super) struct TokenFile {
    path: PathBuf,
    header: HeaderValue,
}

impl TokenFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// The file cannot be read, or does not hold a token.
    pub(super) fn open(path: &str) -> Result<Self, AuthError> {
        let path = PathBuf::from(path);
        Ok(Self { header: read(&path)?, path })
    }

    /// Adds the token to a request. A file that cannot be read leaves the last token in use.
    pub(super) fn sign<B>(&mut self, mut request: Request<B>) -> Request<B> {
        if let Ok(header) = read(&self.path) {
            self.header = header;
        }
        request.headers_mut().insert(AUTHORIZATION, self.header.clone());
        request
    }
}

fn read(path: &Path) -> Result<HeaderValue, AuthError> {
    let token = std::fs::read_to_string(path).map_err(|error| AuthError::ReadTokenFile(error, path.to_owned()))?;
    let mut header =
        HeaderValue::try_from(format!("Bearer {}", token.trim())).map_err(AuthError::InvalidBearerToken)?;
    header.set_sensitive(true);
    Ok(header)
}
