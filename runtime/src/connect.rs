//! The client of the API server, with the credentials of KUBECONFIG or of the pod's ServiceAccount.
//! `main` creates it once; its clones share one connection pool.
//!
//! This module sends no request, so a program also starts while the API server is unavailable. The
//! program is then not ready, and its watches and writers retry until the API server replies. Only
//! credentials that can never work end the program.

mod token;

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tower::util::{BoxService, MapRequestLayer, MapResultLayer};
use tower::{BoxError, ServiceBuilder, ServiceExt};

use crate::api_health::ApiHealth;
use crate::watch::RESPONSE_IDLE_MAX;
use token::TokenFile;

/// The time limit of a TCP connection and TLS handshake with the API server.
pub const API_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time without data after which a connection is closed.
pub const API_READ_TIMEOUT: Duration = Duration::from_secs(100);
const _: () = assert!(
    API_READ_TIMEOUT.as_secs() > RESPONSE_IDLE_MAX.as_secs() + 5,
    "an idle watch must end by itself first"
);
/// The time after which the kernel closes a connection to a host that does not acknowledge data
/// (`TCP_USER_TIMEOUT`) or keepalive probes, as after a power failure of that host.
const API_UNREACHABLE_MAX: Duration = Duration::from_secs(45);
/// The time without data after which the kernel sends keepalive probes, and the interval of these
/// probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The maximum size of a connection's read buffer in bytes, and so of the headers of a response.
/// Each watch has a connection. With hyper's default of 400 KiB, the buffers take up to 2 MB.
const CONNECTION_BUFFER_MAX: usize = 64 * 1024;

/// Reason why the client cannot be created, with the remedy where one is known.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// KUBECONFIG is set, and its value cannot be used.
    #[error(
        "KUBECONFIG={0} cannot be used: set it to a readable kubeconfig file that has a current \
         context"
    )]
    Kubeconfig(String, #[source] KubeconfigError),
    /// KUBECONFIG is not set, and the program does not run in a pod with a ServiceAccount.
    #[error(
        "no credentials for the API server: set KUBECONFIG to a kubeconfig file, or run in a pod \
         with a ServiceAccount"
    )]
    InCluster(#[source] InClusterError),
    /// The credentials were read but cannot be used: a certificate or key is invalid, or the
    /// credentials require a proxy.
    #[error("the credentials for the API server are not valid")]
    Client(#[source] kube::Error),
}

/// Creates the client. `health` observes the result of each request. Must be called inside a tokio
/// runtime.
///
/// # Errors
/// [`ConnectError`], with which `main` ends the program.
pub async fn connect(health: &Arc<ApiHealth>) -> Result<Client, ConnectError> {
    #[expect(
        clippy::disallowed_methods,
        reason = "KUBECONFIG is Kubernetes' own variable; it has no flag"
    )]
    let kubeconfig = std::env::var("KUBECONFIG").unwrap_or_default();
    let config = if kubeconfig.is_empty() {
        Config::incluster().map_err(ConnectError::InCluster)?
    } else {
        credentials(&kubeconfig)
            .await
            .map_err(|error| ConnectError::Kubeconfig(kubeconfig, error))?
    };
    client(config, health)
}

/// Reads credentials from one file or a list of files separated by colons. If several files define
/// the same name, the first definition applies, as in kubectl.
async fn credentials(kubeconfig: &str) -> Result<Config, KubeconfigError> {
    let mut merged = Kubeconfig::default();
    for path in std::env::split_paths(kubeconfig).filter(|path| !path.as_os_str().is_empty()) {
        merged = merged.merge(Kubeconfig::read_from(path)?)?;
    }
    Config::from_custom_kubeconfig(merged, &KubeConfigOptions::default()).await
}

fn client(mut config: Config, health: &Arc<ApiHealth>) -> Result<Client, ConnectError> {
    config.connect_timeout = Some(API_CONNECT_TIMEOUT);
    config.read_timeout = Some(API_READ_TIMEOUT);
    config.reset_reader_on_write = true;
    // By default, kube retries after 429, 503 and 504 up to 15 times, which takes minutes, and
    // hides these failures. FerroLB's callers retry themselves, with `backoff`.
    config.default_retry = false;
    let health = Arc::clone(health);
    let observe = MapResultLayer::new(move |result| {
        health.observe(&result);
        result
    });
    Ok(low_latency_client(config).map_err(ConnectError::Client)?.with_layer(&observe).build())
}

/// Service that sends a request to the API server and returns the response.
type ApiService = BoxService<Request<Body>, Response<Incoming>, BoxError>;

/// Creates the client as kube does, with two differences. TCP_NODELAY is set, so the first request
/// over a new connection does not wait for an acknowledgment, which takes 40 ms (Nagle's algorithm
/// and delayed ACKs, RFC 896 and 1122). [`TokenFile`] reads the file of a bearer token instead of
/// kube.
fn low_latency_client(mut config: Config) -> Result<ClientBuilder<ApiService>, kube::Error> {
    if config.proxy_url.is_some() {
        // FerroLB is built without kube's support for proxies. For credentials with a proxy, kube's
        // own constructor returns the error.
        drop(ClientBuilder::try_from(config.clone())?);
    }
    let token = token_file(&mut config)
        .map(|path| TokenFile::open(&path))
        .transpose()
        .map_err(kube::Error::Auth)?;
    let authorize =
        token.map(|mut file| MapRequestLayer::new(move |request| file.authorize(request)));
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_tcp_user_timeout(Some(API_UNREACHABLE_MAX));
    connector.set_keepalive(Some(KEEPALIVE_IDLE));
    connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    let mut connector =
        TimeoutConnector::new(config.rustls_https_connector_with_connector(connector)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .option_layer(authorize)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(
            hyper_util::client::legacy::Client::builder(TokioExecutor::new())
                .http1_max_buf_size(CONNECTION_BUFFER_MAX)
                .build(connector),
        );
    Ok(ClientBuilder::new(service.boxed(), config.default_namespace))
}

/// Removes the path of the token file from `config` and returns it. Returns `None` if `config` has
/// other credentials, which take precedence.
fn token_file(config: &mut Config) -> Option<String> {
    let auth = &mut config.auth_info;
    let other = auth.auth_provider.is_some() || auth.username.is_some() || auth.token.is_some();
    if other { None } else { auth.token_file.take() }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use prometheus_client::registry::Registry;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn failed_requests_make_an_absent_server_unavailable() {
        let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let health = ApiHealth::new(&mut Registry::default());
        let config = Config::new(format!("http://{unused}").parse().unwrap());
        let client = client(config, &health).unwrap();
        assert!(!health.is_unavailable());
        client.apiserver_version().await.unwrap_err();
        assert!(health.is_unavailable());
    }

    #[tokio::test]
    async fn a_request_to_an_overloaded_server_fails_at_once() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let health = ApiHealth::new(&mut Registry::default());
        let config =
            Config::new(format!("http://{}", server.local_addr().unwrap()).parse().unwrap());
        let client = client(config, &health).unwrap();
        let serve_busy = async {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut request = [0; 4096];
            assert_ne!(stream.read(&mut request).await.unwrap(), 0);
            stream
                .write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .await
                .unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        };
        let (result, ()) =
            tokio::join!(timeout(Duration::from_secs(5), client.apiserver_version()), serve_busy);
        let result = result.unwrap();
        assert!(
            matches!(&result, Err(kube::Error::Api(status)) if status.code == 503),
            "the result is {result:?}"
        );
        assert!(health.is_unavailable());
    }

    #[tokio::test]
    async fn each_request_has_the_latest_token_that_could_be_read() {
        let path = std::env::temp_dir().join(format!("ferrolb-token-{}", std::process::id()));
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config =
            Config::new(format!("http://{}", server.local_addr().unwrap()).parse().unwrap());
        config.auth_info.token_file = Some(path.display().to_string());
        let missing =
            client(config.clone(), &ApiHealth::new(&mut Registry::default())).err().unwrap();
        assert!(
            matches!(missing, ConnectError::Client(kube::Error::Auth(_))),
            "the error is {missing:?}"
        );
        std::fs::write(&path, "first\n").unwrap();
        let client = client(config, &ApiHealth::new(&mut Registry::default())).unwrap();
        let mut sent_tokens = Vec::new();
        for replace in [None, Some("second"), Some("")] {
            match replace {
                None => {}
                Some("") => std::fs::remove_file(&path).unwrap(),
                Some(token) => std::fs::write(&path, token).unwrap(),
            }
            let receive_request = async {
                let (mut stream, _) = server.accept().await.unwrap();
                let mut request = [0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                stream
                    .write_all(
                        b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                    )
                    .await
                    .unwrap();
                String::from_utf8_lossy(&request[..length]).into_owned()
            };
            let (result, request) = tokio::join!(
                timeout(Duration::from_secs(5), client.apiserver_version()),
                receive_request
            );
            result.unwrap().unwrap_err();
            sent_tokens.extend(
                request
                    .lines()
                    .find_map(|line| line.strip_prefix("authorization: ").map(str::to_owned)),
            );
        }
        assert_eq!(sent_tokens, ["Bearer first", "Bearer second", "Bearer second"]);
    }

    const KUBECONFIG: &str = r#"
clusters: [{name: c, cluster: {server: "https://192.0.2.1:6443"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
"#;

    #[tokio::test]
    async fn an_unusable_kubeconfig_is_an_error_with_its_cause() {
        let dir = std::env::temp_dir().join(format!("ferrolb-connect-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let complete = file("whole", &format!("{KUBECONFIG}current-context: x\n"));
        let context_only = file("context", "current-context: x\n");
        let without_context = file("headless", KUBECONFIG);
        let broken = file("broken", "clusters: [");
        let missing = dir.join("missing").display().to_string();
        let mut results = Vec::new();
        for list in [
            &complete,
            &format!("{context_only}:{without_context}"),
            &without_context,
            &broken,
            &missing,
        ] {
            results.push(credentials(list).await.map(|config| config.cluster_url.to_string()));
        }
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(results[0].as_ref().unwrap(), "https://192.0.2.1:6443/");
        assert_eq!(results[1].as_ref().unwrap(), "https://192.0.2.1:6443/");
        assert!(
            matches!(results[2], Err(KubeconfigError::CurrentContextNotSet)),
            "the result is {:?}",
            results[2]
        );
        assert!(
            matches!(results[3], Err(KubeconfigError::Parse(_))),
            "the result is {:?}",
            results[3]
        );
        assert!(
            matches!(results[4], Err(KubeconfigError::ReadConfig(..))),
            "the result is {:?}",
            results[4]
        );
    }
}
