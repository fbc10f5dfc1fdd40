//! Sends the requests of one watch, and reads their responses while they arrive. Of each response,
//! only the object that is arriving is in memory.

use std::future::Future;
use std::io;
use std::pin::Pin;

use futures::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};
use kube::api::{ListParams, WatchParams};
use kube::core::Request;
use kube::{Client, Error};
use serde::de::Error as _;
use tokio::time::timeout;

use super::items::ListSplitter;
use super::{LIST_PAGE_OBJECTS, OBJECT_BYTES_MAX, RESPONSE_IDLE_MAX, WATCH_TIMEOUT};

/// The client, the API path and the selectors of one watch.
pub(super) struct WatchSource {
    client: Client,
    request: Request,
    pub(super) labels: Option<&'static str>,
    pub(super) fields: Option<&'static str>,
}

impl WatchSource {
    pub(super) fn new(client: Client, path: &str) -> Self {
        Self { client, request: Request::new(path), labels: None, fields: None }
    }

    /// Requests a page of a list: the first page, or the page for the continue token of the
    /// previous one.
    pub(super) async fn page(&self, token: Option<String>) -> Result<ResponseBody, Error> {
        let params = ListParams {
            label_selector: self.labels.map(str::to_owned),
            field_selector: self.fields.map(str::to_owned),
            limit: Some(LIST_PAGE_OBJECTS),
            continue_token: token,
            ..ListParams::default()
        };
        self.send(self.request.list(&params)).await
    }

    /// Requests the changes after this resource version.
    pub(super) async fn changes(&self, version: &str) -> Result<ResponseBody, Error> {
        let params = WatchParams {
            label_selector: self.labels.map(str::to_owned),
            field_selector: self.fields.map(str::to_owned),
            timeout: u32::try_from(WATCH_TIMEOUT.as_secs()).ok(),
            ..WatchParams::default()
        };
        self.send(self.request.watch(&params, version)).await
    }

    async fn send(
        &self,
        request: Result<hyper::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<ResponseBody, Error> {
        let request = request.map_err(Error::BuildRequest)?;
        Ok(ResponseBody {
            body: Box::pin(self.client.request_stream(request).await?),
            splitter: ListSplitter::default(),
        })
    }
}

/// The body of a response while it arrives.
pub(super) struct ResponseBody {
    body: Pin<Box<dyn AsyncBufRead + Send>>,
    splitter: ListSplitter,
}

impl ResponseBody {
    /// Returns the next object of a list. `None`: there are no more objects, and
    /// [`ResponseBody::envelope`] is complete.
    pub(super) async fn object(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            let bytes = with_idle_timeout(self.body.fill_buf()).await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let (read, object) = self
                .splitter
                .read(bytes)
                .map_err(|error| Error::SerdeError(serde_json::Error::custom(error)))?;
            self.body.consume_unpin(read);
            if object.is_some() {
                return Ok(object);
            }
        }
    }

    /// Returns the text of a list without its objects.
    pub(super) fn envelope(&self) -> &[u8] {
        self.splitter.envelope()
    }

    /// Returns the next line of a watch. `None`: the watch has ended.
    pub(super) async fn line(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let mut line = Vec::new();
        let mut limited = (&mut self.body).take(OBJECT_BYTES_MAX as u64);
        with_idle_timeout(limited.read_until(b'\n', &mut line)).await?;
        if line.len() == OBJECT_BYTES_MAX {
            return Err(Error::LinesCodecMaxLineLengthExceeded);
        }
        Ok((line.last() == Some(&b'\n')).then_some(line))
    }
}

async fn with_idle_timeout<T>(read: impl Future<Output = io::Result<T>>) -> Result<T, Error> {
    let result = timeout(RESPONSE_IDLE_MAX, read)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    result.map_err(Error::ReadEvents)
}
