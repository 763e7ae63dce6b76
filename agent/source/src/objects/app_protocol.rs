use ambit_model::AppProtocol;

/// What a port of a Service speaks, as Istio tells it: by `appProtocol`, which wins where it is
/// set, or else by its name up to the first `-`. Upper and lower case are the same.
pub(super) fn app_protocol(declared: Option<&str>, port_name: Option<&str>) -> AppProtocol {
    match declared {
        Some("kubernetes.io/h2c") => AppProtocol::Http2,
        Some("kubernetes.io/ws") => AppProtocol::Http,
        Some(declared) => by_prefix(declared),
        None => port_name.map_or(AppProtocol::Opaque, by_prefix),
    }
}

/// `grpc-web` has the `-` in it, and both its parts are HTTP/2, as for Istio.
fn by_prefix(text: &str) -> AppProtocol {
    let prefix = text.split_once('-').map_or(text, |(prefix, _)| prefix);
    match prefix.to_ascii_lowercase().as_str() {
        "http" | "http_proxy" => AppProtocol::Http,
        "http2" | "h2c" | "grpc" => AppProtocol::Http2,
        _ => AppProtocol::Opaque,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_port_declares_by_its_prefix() {
        for (name, protocol) in [
            ("http", AppProtocol::Http),
            ("HTTP-web", AppProtocol::Http),
            ("http-admin-2", AppProtocol::Http),
            ("http2", AppProtocol::Http2),
            ("http2-api", AppProtocol::Http2),
            ("grpc", AppProtocol::Http2),
            ("grpc-web", AppProtocol::Http2),
            ("grpc-web-x", AppProtocol::Http2),
            ("h2c", AppProtocol::Http2),
            ("", AppProtocol::Opaque),
            ("httpx", AppProtocol::Opaque),
            ("web-http", AppProtocol::Opaque),
            ("https", AppProtocol::Opaque),
            ("https-http", AppProtocol::Opaque),
            ("tls", AppProtocol::Opaque),
            ("tcp-http", AppProtocol::Opaque),
            ("mysql", AppProtocol::Opaque),
            ("redis", AppProtocol::Opaque),
            ("mongo", AppProtocol::Opaque),
            ("ws", AppProtocol::Opaque),
        ] {
            assert_eq!(app_protocol(None, Some(name)), protocol, "{name:?}");
        }
        assert_eq!(app_protocol(None, None), AppProtocol::Opaque);
    }

    #[test]
    fn app_protocol_beats_the_name() {
        for (declared, protocol) in [
            ("kubernetes.io/h2c", AppProtocol::Http2),
            ("kubernetes.io/ws", AppProtocol::Http),
            ("kubernetes.io/wss", AppProtocol::Opaque),
            ("HTTP", AppProtocol::Http),
            ("grpc", AppProtocol::Http2),
            ("tcp", AppProtocol::Opaque),
            ("example.com/http", AppProtocol::Opaque),
            ("", AppProtocol::Opaque),
        ] {
            assert_eq!(app_protocol(Some(declared), None), protocol, "{declared:?}");
            for name in ["http", "tcp", "grpc"] {
                let both = app_protocol(Some(declared), Some(name));
                assert_eq!(both, protocol, "{declared:?} {name}");
            }
        }
    }
}
