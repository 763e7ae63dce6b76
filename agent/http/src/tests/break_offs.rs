//! Applications that break off: what they sent before arrives, and then the client sees how they ended.

use socket2::SockRef;
use tokio::time::{pause, sleep};

use super::upgrade::{AGREED, OFFER, OFFERED};
use super::*;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const SENT: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// An answer of which only the end of the connection shows the end.
const UNTIL_CLOSE: &str = "HTTP/1.1 200 OK\r\n\r\n";
const PASSED_ON: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";

/// More than a reader's kernel takes if its application reads nothing, and less than fits into the proxy's
/// sockets.
const ANSWER: usize = 256 << 10;
const SMALL_BUFFER: usize = 4 << 10;

/// With a paused clock, longer than any limit.
const PATIENCE_WHEN_PAUSED: Duration = Duration::from_secs(3600);

fn break_off(application: TcpStream) {
    application.set_zero_linger().unwrap();
    drop(application);
}

impl Scene {
    /// The application sends the rest of its answer, and breaks off once the proxy has written it to a client that
    /// does not read.
    async fn send_and_break_off(
        mut self,
    ) -> (TcpStream, TestGate, JoinHandle<ServeOutcome<TcpStream>>) {
        SockRef::from(&self.client)
            .set_recv_buffer_size(SMALL_BUFFER)
            .unwrap();
        self.application.write_all(&[7; ANSWER]).await.unwrap();
        while self.meter.received() < ANSWER as u64 {
            sleep(Duration::from_millis(5)).await;
        }
        break_off(self.application);
        // A moment in which it may be noticed too early.
        sleep(Duration::from_millis(50)).await;
        (self.client, self.gate, self.serving)
    }
}

/// Everything that can be read, and how it ended.
async fn read_all(stream: &mut TcpStream) -> (usize, Result<(), ErrorKind>) {
    let (mut read, mut piece) = (0, [0; 4096]);
    loop {
        match stream.read(&mut piece).await {
            Ok(0) => return (read, Ok(())),
            Ok(length) => read += length,
            Err(error) => return (read, Err(error.kind())),
        }
    }
}

const RESET: Result<(), ErrorKind> = Err(ErrorKind::ConnectionReset);

#[test]
fn an_answer_without_a_length_arrives_before_its_reset() {
    run(async {
        let mut scene = Scene::new().await;
        scene.pass(GET, SENT).await;
        scene.answer(UNTIL_CLOSE, PASSED_ON).await;
        let (mut client, gate, serving) = scene.send_and_break_off().await;
        assert_eq!(read_all(&mut client).await, (ANSWER, RESET));
        serving.await.unwrap();
        assert_eq!(gate.outcomes(), [RequestOutcome::ApplicationFailed]);
    });
}

#[test]
fn an_upgraded_connection_arrives_before_its_reset() {
    run(async {
        let mut scene = Scene::new().await;
        scene.pass(OFFER, OFFERED).await;
        scene.answer(AGREED, AGREED).await;
        let (mut client, gate, serving) = scene.send_and_break_off().await;
        assert_eq!(read_all(&mut client).await, (ANSWER, RESET));
        serving.await.unwrap();
        assert_eq!(gate.outcomes(), [RequestOutcome::ApplicationFailed]);
    });
}

/// The kernel reports a reset once. It must not look like the end of the answer to the one who reads, if the one who
/// writes was told.
#[test]
fn a_reset_that_an_upload_meets_is_not_the_end_of_the_answer() {
    run(async {
        for _ in 0..20 {
            let mut scene = Scene::new().await;
            let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 999999999\r\n\r\n";
            scene.pass(head, "POST / HTTP/1.1\r\nhost: a\r\n").await;
            scene.answer(UNTIL_CLOSE, PASSED_ON).await;
            let (mut read, mut write) = scene.client.into_split();
            let uploading =
                spawn_local(async move { while write.write_all(&[0; 64 << 10]).await.is_ok() {} });
            while scene.meter.sent() < ANSWER as u64 {
                sleep(Duration::from_millis(1)).await;
            }
            break_off(scene.application);
            let ended = read.read_to_end(&mut Vec::new()).await;
            assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
            uploading.await.unwrap();
        }
    });
}

#[test]
fn a_client_that_takes_nothing_of_what_an_application_left_behind_is_reset() {
    run_within(PATIENCE_WHEN_PAUSED, async {
        let mut scene = Scene::new().await;
        scene.pass(GET, SENT).await;
        scene.answer(UNTIL_CLOSE, PASSED_ON).await;
        let piece = [7; 64 << 10];
        let mut application = scene.application;
        while let Ok(written) = timeout(Duration::from_millis(500), application.write(&piece)).await
        {
            written.unwrap();
        }
        break_off(application);
        pause();
        scene.serving.await.unwrap();
        assert_eq!(scene.gate.outcomes(), [RequestOutcome::ClientFailed]);
        let (_, ended) = read_all(&mut scene.client).await;
        assert_eq!(ended, RESET);
    });
}
