//! A bearer token in a file that the kubelet replaces regularly. The client owns one [`TokenFile`]
//! and reads the file for every request, which takes microseconds.
//!
//! kube's own implementation reads the file again only when a minute has passed by the wall clock.
//! If the wall clock were set back by an hour, kube would use a token for an hour after the kubelet
//! replaced it.

use std::path::{Path, PathBuf};

use hyper::Request;
use hyper::header::{AUTHORIZATION, HeaderValue};
use kube::client::AuthError;

/// A file with a bearer token (RFC 6750, section 2.1), and the header with the token that was read
/// most recently.
#[derive(Clone)]
pub(super) struct TokenFile {
    path: PathBuf,
    header: HeaderValue,
}

impl TokenFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// The file cannot be read, or its content is not valid in an HTTP header.
    pub(super) fn open(path: &str) -> Result<Self, AuthError> {
        let path = PathBuf::from(path);
        Ok(Self { header: read(&path)?, path })
    }

    /// Adds the current token to a request. If the file cannot be read, the request has the token
    /// that was read before.
    pub(super) fn authorize<B>(&mut self, mut request: Request<B>) -> Request<B> {
        if let Ok(header) = read(&self.path) {
            self.header = header;
        }
        request.headers_mut().insert(AUTHORIZATION, self.header.clone());
        request
    }
}

fn read(path: &Path) -> Result<HeaderValue, AuthError> {
    let token = std::fs::read_to_string(path)
        .map_err(|error| AuthError::ReadTokenFile(error, path.to_owned()))?;
    let mut header = HeaderValue::try_from(format!("Bearer {}", token.trim()))
        .map_err(AuthError::InvalidBearerToken)?;
    header.set_sensitive(true);
    Ok(header)
}
