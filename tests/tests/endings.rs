//! What was sent arrives, however a connection ends: at readers that begin late or read slowly, and before the end of an
//! application that breaks off. Each scene also runs without a mesh, between the same pods' nodes.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use ambit_tests::{
    Lab, Membership, NodeName, Place, Pod, PodSpec, Process, ReadAnswer, ReaderOrder, Readers,
    Reading, Site, Source, Timing, eventually, run_tests, tests,
};
use anyhow::{Context, Result, ensure};

const PORT: u16 = 8090;

const DENY_ADMIN: &str = "action: DENY\nrules: [{to: [{operation: {paths: [/admin]}}]}]";

/// How long a reader sleeps before it reads: longer than a server waits for one that has its answer.
const LATE: Duration = Duration::from_secs(10);

/// The limit for all connections of a scene.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connections that an application breaks off.
const BROKEN_OFF: usize = 40;

fn main() -> ExitCode {
    run_tests(tests![
        late_and_slow_readers_get_all_of_an_answer,
        what_a_client_sends_before_it_leaves_arrives,
        what_an_application_sends_before_it_breaks_off_arrives,
        what_late_readers_have_not_read_when_the_application_breaks_off_arrives,
        an_answer_to_an_upload_that_the_application_does_not_take_arrives,
    ])
}

/// A source without policies, and one whose requests are judged.
struct Scene {
    site: Site,
    /// In the mesh, on the sources' node.
    neighbour: Pod,
    plain: Source,
    _judged: Source,
}

/// From where to where.
struct Way<'a> {
    name: &'static str,
    from: &'a Place,
    to: SocketAddr,
}

impl Scene {
    fn start(lab: &Lab) -> Result<Self> {
        Site::declare(lab, "judged", PORT, "http")?;
        let neighbour = lab.add_pod(NodeName::B, PodSpec::named("neighbour"))?;
        let manifests = lab.manifests();
        manifests.write_namespace("neighbour", Membership::Ambient)?;
        manifests.write_pod(&neighbour)?;
        let site = Site::start(lab, &[("plain", &[]), ("judged", &[DENY_ADMIN])])?;
        let source = |name| Source::in_pod(lab, &site.backend(name)?.pod, PORT);
        let (plain, judged) = (source("plain")?, source("judged")?);
        Ok(Self {
            site,
            neighbour,
            plain,
            _judged: judged,
        })
    }

    fn ways(&self) -> Result<[Way<'_>; 4]> {
        let site = &self.site;
        let [caller, outsider] = [site.caller.place(), site.outsider.place()];
        let neighbour = self.neighbour.place();
        let to = |name| Ok::<_, anyhow::Error>(site.backend(name)?.pod.at(PORT));
        let way = |name, from, to| Way { name, from, to };
        Ok([
            way("without a mesh", outsider, to("plain")?),
            way("through a tunnel", caller, to("plain")?),
            way("judged by request", caller, to("judged")?),
            way("judged by request, on one node", neighbour, to("judged")?),
        ])
    }

    /// Runs the same orders on every way at the same time, and returns the answers of each.
    fn read(
        &self,
        lab: &Lab,
        orders: impl Fn(SocketAddr) -> Vec<ReaderOrder<'static>>,
    ) -> Result<Vec<(&'static str, Vec<ReadAnswer>)>> {
        let started = self.ways()?.map(|way| {
            let readers = Readers::start(lab, way.from, &orders(way.to));
            Ok::<_, anyhow::Error>((way.name, readers?))
        });
        let mut all = Vec::new();
        for started in started {
            let (name, mut readers) = started?;
            all.push((name, readers.answers(PATIENCE)?));
        }
        Ok(all)
    }
}

/// How many answers there are, for messages: each kind once, with its number.
fn summary(answers: &[ReadAnswer]) -> String {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for answer in answers {
        let ReadAnswer {
            order,
            status,
            bytes,
            end,
            ..
        } = answer;
        let kind = format!("order {order}: status {status:?}, {bytes} bytes, {end}");
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((kind, 1)),
        }
    }
    let lines = kinds
        .iter()
        .map(|(kind, count)| format!("{count} × {kind}"));
    lines.collect::<Vec<_>>().join("\n")
}

fn late_and_slow_readers_get_all_of_an_answer(lab: &Lab) -> Result<()> {
    const BYTES: u64 = 1 << 20;
    let scene = Scene::start(lab)?;
    let others = scene
        .ways()?
        .into_iter()
        .map(|way| Ok((way.name, OtherClients::start(lab, &way)?)))
        .collect::<Result<Vec<_>>>()?;
    let all = scene.read(lab, |to| {
        let late = ReaderOrder {
            reading: Reading::After(LATE),
            ..ReaderOrder::get(4, to, "/whole/1048576")
        };
        let small = ReaderOrder {
            receive_buffer: Some(4096),
            ..late.clone()
        };
        vec![late, small]
    })?;
    let mut cut = Vec::new();
    for (way, answers) in &all {
        let whole = answers.iter().filter(|answer| answer.is(200, BYTES));
        if whole.count() != 8 {
            cut.push(format!("{way}:\n{}", summary(answers)));
        }
    }
    for (way, clients) in others {
        if let Err(error) = clients.ensure_whole(BYTES) {
            cut.push(format!("{way}: {error:#}"));
        }
    }
    ensure!(cut.is_empty(), "{}", cut.join("\n"));
    Ok(())
}

/// curl, which reads slowly, and Node, which begins late.
struct OtherClients {
    curl: Process,
    node: Process,
}

impl OtherClients {
    fn start(lab: &Lab, way: &Way) -> Result<Self> {
        let url = format!("http://{}/whole/1048576", way.to);
        let start =
            |mut command: Command, name: &str| Process::start(&mut command, &lab.new_log(name)?);
        let mut curl = way.from.command("curl")?;
        curl.args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--limit-rate",
            "96K",
        ]);
        curl.args([
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code} %{size_download}\n",
        ]);
        curl.arg(&url);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/late.js");
        let mut node = way.from.command("node")?;
        node.arg(script).arg(&url).arg(LATE.as_millis().to_string());
        Ok(Self {
            curl: start(curl, "curl")?,
            node: start(node, "node")?,
        })
    }

    fn ensure_whole(self, bytes: u64) -> Result<()> {
        for (name, mut client) in [("curl", self.curl), ("Node", self.node)] {
            eventually(PATIENCE, "the end of a client", || {
                (!client.is_running()).then_some(())
            })
            .context(name)?;
            let said = client.log();
            ensure!(said.trim() == format!("200 {bytes}"), "{name}: {said}");
        }
        Ok(())
    }
}

fn what_a_client_sends_before_it_leaves_arrives(lab: &Lab) -> Result<()> {
    const COUNT: usize = 4;
    const BYTES: u64 = 1 << 20;
    let scene = Scene::start(lab)?;
    scene.read(lab, |to| {
        vec![ReaderOrder {
            upload: BYTES,
            reading: Reading::Leaves,
            ..ReaderOrder::get(COUNT, to, "/late/7000")
        }]
    })?;
    // A judged request ends with its client: what it had sent need not arrive.
    let source = &scene.plain;
    eventually(PATIENCE, "what clients have sent", || {
        (source.late().len() == 2 * COUNT).then_some(())
    })
    .with_context(|| format!("{:?}", source.late()))?;
    let late = source.late();
    let is_whole = |said: &serde_json::Value| said["late"] == BYTES && said["intact"] == true;
    ensure!(late.iter().all(is_whole), "{late:?}");
    Ok(())
}

fn what_an_application_sends_before_it_breaks_off_arrives(lab: &Lab) -> Result<()> {
    const SENT: u64 = 20_000;
    let scene = Scene::start(lab)?;
    let all = scene.read(lab, |to| {
        let get = |path| ReaderOrder {
            timing: Timing::InTurn,
            ..ReaderOrder::get(BROKEN_OFF, to, path)
        };
        // It does not read the body, so the kernel resets the connection.
        let reset = |path| ReaderOrder {
            upload: 10,
            ..get(path)
        };
        vec![
            get("/break/100000/20000"),
            get("/killed/100000/20000"),
            reset("/unread/100000/20000"),
            get("/cut/20000"),
        ]
    })?;
    let mut wrong = Vec::new();
    for (way, answers) in &all {
        // The client sees a reset if the application has reset the connection, and otherwise the end.
        let is_told = |answer: &&ReadAnswer| {
            let is_reset = answer.end == "ConnectionReset";
            answer.is(200, SENT) && (is_reset || answer.order < 2)
        };
        if answers.iter().filter(is_told).count() != 4 * BROKEN_OFF {
            wrong.push(format!("{way}:\n{}", summary(answers)));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Answers without a length, and what follows an upgrade, at readers that begin late and take little: much is under
/// way when the application breaks off.
fn what_late_readers_have_not_read_when_the_application_breaks_off_arrives(
    lab: &Lab,
) -> Result<()> {
    const SENT: u64 = 100_000;
    const PAUSE: Duration = Duration::from_secs(2);
    let scene = Scene::start(lab)?;
    let all = scene.read(lab, |to| {
        let cut = ReaderOrder {
            reading: Reading::After(PAUSE),
            receive_buffer: Some(4096),
            ..ReaderOrder::get(BROKEN_OFF, to, "/cut/100000")
        };
        let upgraded = ReaderOrder {
            path: "/upgraded/100000",
            headers: "Connection: Upgrade\r\nUpgrade: source\r\n",
            ..cut.clone()
        };
        vec![cut, upgraded]
    })?;
    let mut wrong = Vec::new();
    for (way, answers) in &all {
        let is_told = |answer: &&ReadAnswer| {
            let status = [200, 101][answer.order];
            answer.is(status, SENT) && answer.end == "ConnectionReset"
        };
        if answers.iter().filter(is_told).count() != 2 * BROKEN_OFF {
            wrong.push(format!("{way}:\n{}", summary(answers)));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// As lighttpd answers what is too long: at once, and then it closes.
fn an_answer_to_an_upload_that_the_application_does_not_take_arrives(lab: &Lab) -> Result<()> {
    const COUNT: usize = 25;
    let scene = Scene::start(lab)?;
    let all = scene.read(lab, |to| {
        vec![ReaderOrder {
            upload: 4 << 20,
            timing: Timing::InTurn,
            ..ReaderOrder::get(COUNT, to, "/early")
        }]
    })?;
    let mut wrong = Vec::new();
    for (way, answers) in &all {
        let refused = |answer: &&ReadAnswer| answer.status == Some(413) && answer.bytes == 9;
        if answers.iter().filter(refused).count() != COUNT {
            wrong.push(format!("{way}:\n{}", summary(answers)));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
