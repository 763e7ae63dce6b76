//! Tunnels over TLS, on networks that pass few bytes at a time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};
use tokio::io::AsyncWriteExt;

use super::*;
use crate::{Delivery, Sink, Socket, TlsWire, TunnelFailure};

impl Socket for DuplexStream {
    fn limit_unsent(&self, _: usize) {}
}

fn configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let signed = rcgen::generate_simple_self_signed(vec!["peer.test".into()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
    let mut roots = RootCertStore::empty();
    roots.add(signed.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.into()], key)
        .unwrap();
    client.enable_secret_extraction = true;
    server.enable_secret_extraction = true;
    server.send_tls13_tickets = 0;
    (Arc::new(client), Arc::new(server))
}

type TlsDuplex = TlsWire<DuplexStream>;

/// Two ends of TLS over a network that holds so many bytes.
async fn wires(network: usize) -> (TlsDuplex, TlsDuplex) {
    let (near, far) = duplex(network);
    let (client, server) = configs();
    let name = ServerName::try_from("peer.test").unwrap();
    let (client, server) = tokio::join!(
        ambit_tls::connect(client, name, near),
        ambit_tls::accept(server, far)
    );
    let (socket, records, early) = client.unwrap().into_parts().unwrap();
    let client = TlsWire::new(socket, records, early);
    let (socket, records, early) = server.unwrap().into_parts().unwrap();
    (client, TlsWire::new(socket, records, early))
}

async fn tunnel(network: usize) -> Pair {
    let (near, far) = wires(network).await;
    let (opener, mut connection) = connect(near, ample(), KEEP);
    spawn_local(async move { while let Ok(Some(_)) = connection.next().await {} });
    let requests = requests(accept(far, ample(), KEEP));
    Pair { opener, requests }
}

#[test]
fn streams_pass_both_ways_whatever_the_network_takes_at_once() {
    for network in [700, 40_000, 1 << 20] {
        run(async || {
            let mut pair = tunnel(network).await;
            let mut streams = Vec::new();
            for _ in 0..8 {
                streams.push(pair.stream().await);
            }
            let transfers = streams
                .into_iter()
                .enumerate()
                .map(|(number, (near, far))| {
                    let (up, down) = (payload(300_000 + number), payload(200_000 - number));
                    spawn_local(async move {
                        let send = async |stream: &Stream, data: &[u8]| {
                            send(stream, data).await.unwrap();
                            stream.finish();
                        };
                        let (_, _, at_far, at_near) = tokio::join!(
                            send(&near, &up),
                            send(&far, &down),
                            receive(&far),
                            receive(&near)
                        );
                        assert!(at_far.0 == up && at_far.1.is_ok());
                        assert!(at_near.0 == down && at_near.1.is_ok());
                    })
                });
            for transfer in transfers.collect::<Vec<_>>() {
                transfer.await.unwrap();
            }
        });
    }
}

/// Takes a few bytes of each other write.
#[derive(Default)]
struct Narrow {
    taken: RefCell<Vec<u8>>,
    turn: Cell<u32>,
}

impl Sink for Narrow {
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.turn.set(self.turn.get() + 1);
        if self.turn.get().is_multiple_of(2) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut room = 10_007;
        for part in parts {
            let now = room.min(part.len());
            self.taken.borrow_mut().extend_from_slice(&part[..now]);
            room -= now;
        }
        Ok(10_007 - room)
    }
}

#[test]
fn what_a_sink_does_not_take_at_once_waits_in_order() {
    run(async || {
        let mut pair = tunnel(1 << 20).await;
        let (near, far) = pair.stream().await;
        let sink = Rc::new(Narrow::default());
        far.attach(Rc::clone(&sink) as Rc<dyn Sink>);
        let data = payload(700_000);
        let sending = async {
            send(&near, &data).await.unwrap();
            near.finish();
        };
        let delivering = async {
            loop {
                match poll_fn(|context| far.poll_delivery(context)).await {
                    Delivery::Blocked => {
                        tokio::task::yield_now().await;
                        far.deliver();
                    }
                    Delivery::Ended => return,
                    other => panic!("{other:?}"),
                }
            }
        };
        tokio::join!(sending, delivering);
        assert!(*sink.taken.borrow() == data);
    });
}

#[test]
fn what_came_before_a_forged_record_is_delivered_and_the_tunnel_ends() {
    run(async || {
        let (near, far) = wires(1 << 20).await;
        let (opener, mut connection) = connect(near, ample(), KEEP);
        let mut requests = requests(accept(far, ample(), KEEP));
        let stream = opener.open("10.0.0.1:80", "").unwrap();
        let driving = async {
            let driven = async { while let Ok(Some(_)) = connection.next().await {} };
            tokio::select! {
                () = driven => panic!("the tunnel ended"),
                far = async {
                    let far = requests.recv().await.unwrap().accept();
                    send(&stream, b"before").await.unwrap();
                    let mut buffer = [0; 6];
                    let mut into = ReadBuf::new(&mut buffer);
                    poll_fn(|context| far.poll_read(context, &mut into)).await.unwrap();
                    far
                } => far,
            }
        };
        let far = driving.await;
        let socket = connection.wire().socket();
        socket
            .write_all(&[
                23, 3, 3, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ])
            .await
            .unwrap();
        let (rest, failed) = receive(&far).await;
        assert!(rest.is_empty());
        let Err(StreamFailure::Tunnel(TunnelFailure::Io(error))) = failed else {
            panic!("{failed:?}");
        };
        assert!(error.to_string().contains("does not decrypt"), "{error}");
        // This side is told why.
        let told = loop {
            match connection.next().await {
                Ok(_) => {}
                Err(failure) => break failure,
            }
        };
        assert!(told.to_string().contains("BadRecordMac"), "{told}");
    });
}
