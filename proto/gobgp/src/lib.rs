//! GoBGP's v4 gRPC API, as far as FerroLB calls it: the messages and, with the feature `client`, a
//! tonic client, generated from `api/gobgp.proto`.
//!
//! Only v4 is supported. GoBGP v3 has another protobuf package and other field numbers, and replies
//! `UNIMPLEMENTED` to every call of this API.

#[cfg_attr(
    feature = "client",
    expect(
        unused_qualifications,
        clippy::allow_attributes_without_reason,
        reason = "generated code"
    )
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/api.rs"));
}

#[cfg(feature = "client")]
pub use generated::go_bgp_service_client::GoBgpServiceClient;
pub use generated::*;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::mpsc;

    use prost::Message;
    use tonic::body::Body;
    use tonic::codegen::http;

    use super::*;

    /// An encoded response, written manually: each tag is `field number << 3 | wire type`.
    const RESPONSE: &[u8] = &[
        0x0a, 0x19, // global = 1, 25 bytes
        0x08, 0xe9, 0xfb, 0x03, // asn = 1: 65001
        0x12, 0x08, b'1', b'0', b'.', b'0', b'.', b'0', b'.', b'1', // router_id = 2
        0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0x01, // listen_port = 3: -1
    ];

    fn response() -> GetBgpResponse {
        GetBgpResponse {
            global: Some(Global { asn: 65001, router_id: "10.0.0.1".into(), listen_port: -1 }),
        }
    }

    #[test]
    fn a_request_is_empty_and_a_response_has_the_field_numbers_of_gobgp() {
        assert_eq!(GetBgpRequest {}.encode_to_vec(), []);
        assert_eq!(GetBgpResponse::decode(RESPONSE).unwrap(), response());
        assert_eq!(response().encode_to_vec(), RESPONSE);
    }

    #[test]
    fn unknown_fields_are_skipped() {
        // families = 5 (packed 65537) and bind_to_device = 11 ("eth0"), after asn = 1.
        let bytes = [
            0x0a, 0x0f, 0x08, 0x01, 0x2a, 0x03, 0x81, 0x80, 0x04, 0x5a, 0x04, b'e', b't', b'h',
            b'0', 0x18, 0x01,
        ];
        let global = Global { asn: 1, router_id: String::new(), listen_port: 1 };
        assert_eq!(
            GetBgpResponse::decode(&bytes[..]).unwrap(),
            GetBgpResponse { global: Some(global) }
        );
    }

    #[test]
    fn a_daemon_before_its_start_has_as_number_0() {
        assert_eq!(GetBgpResponse::decode(&[0x0a, 0x00][..]).unwrap().global.unwrap().asn, 0);
    }

    #[tokio::test]
    async fn the_call_has_the_path_that_gobgp_serves() {
        let (sender, paths) = mpsc::channel();
        let daemon = tower::service_fn(move |request: http::Request<Body>| {
            sender.send(request.uri().path().to_owned()).unwrap();
            // A gRPC response without a message: the call fails, but the path has been received.
            std::future::ready(Ok::<_, Infallible>(http::Response::new(Body::empty())))
        });
        GoBgpServiceClient::new(daemon).get_bgp(GetBgpRequest {}).await.unwrap_err();
        assert_eq!(paths.recv().unwrap(), "/api.GoBgpService/GetBgp");
    }
}
