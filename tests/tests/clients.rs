//! Unmodified clients: other languages' runtimes, each of which uses sockets in its own way.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use ambit_tests::{
    Capture, Lab, Place, Process, Reference, SwarmServer, output, output_within, run_tests, tests,
};
use anyhow::{Context, Result, ensure};

const PORT: u16 = Reference::PORT;

/// More than all buffers on the path hold.
const BYTES: &str = "33554432";

fn main() -> ExitCode {
    run_tests(tests![
        python_asyncio,
        node,
        java_with_mapped_addresses,
        go_with_splice,
        nginx_as_a_proxy_and_with_sendfile,
    ])
}

/// The reference example, with a server in `orders`, which `frontend` may call, that sends back
/// what it gets.
struct Scene {
    mesh: Reference,
    _agents: [ambit_tests::Agent; 2],
    _server: SwarmServer,
}

impl Scene {
    fn start(lab: &Lab) -> Result<Self> {
        let (mesh, agents) = Reference::start(lab)?;
        let orders = &mesh.orders;
        let server = SwarmServer::start(lab, orders.place(), orders.at(PORT))?;
        Ok(Self {
            _agents: agents,
            _server: server,
            mesh,
        })
    }

    fn frontend(&self) -> &Place {
        self.mesh.frontend.place()
    }

    fn orders(&self) -> SocketAddr {
        self.mesh.orders.at(PORT)
    }

    /// Runs a program that sends bytes to `orders` and back, and calls `payments`, which denies it.
    fn ensure_works(&self, program: &str, source: &str) -> Result<()> {
        let said = echo(self.frontend(), program, source, self.orders())?;
        ensure!(said == format!("equal {}", self.orders().ip()), "{said}");
        let said = echo(
            self.frontend(),
            program,
            source,
            self.mesh.payments.at(PORT),
        )?;
        ensure!(said.starts_with("refused"), "denied: {said}");
        Ok(())
    }
}

/// The output of an echo client.
fn echo(from: &Place, program: &str, source: &str, to: SocketAddr) -> Result<String> {
    let mut command = from.command(program)?;
    command.arg(client(source));
    command.args([&to.ip().to_string(), &to.port().to_string(), BYTES]);
    let outcome = output(&mut command)?;
    ensure!(outcome.status.success(), "{program}: {}", outcome.stderr);
    Ok(outcome.stdout.trim().to_owned())
}

fn client(source: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(source)
}

fn python_asyncio(lab: &Lab) -> Result<()> {
    Scene::start(lab)?.ensure_works("python3", "echo.py")
}

fn node(lab: &Lab) -> Result<()> {
    Scene::start(lab)?.ensure_works("node", "echo.js")
}

fn java_with_mapped_addresses(lab: &Lab) -> Result<()> {
    Scene::start(lab)?.ensure_works("java", "Echo.java")
}

fn go_with_splice(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let relay = lab.directory().join("relay");
    let mut build = Command::new("go");
    build.arg("build").arg("-o").arg(&relay);
    // Go compiles its standard library the first time.
    let outcome = output_within(Duration::from_secs(180), build.arg(client("relay.go")))?;
    ensure!(outcome.status.success(), "go build: {}", outcome.stderr);
    let listen = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 7000);
    for (target, expected) in [
        (scene.orders(), "equal 127.0.0.1"),
        (scene.mesh.payments.at(PORT), "refused"),
    ] {
        let mut command = scene.frontend().command(&relay)?;
        command.args([listen.to_string(), target.to_string()]);
        let log = lab.directory().join("relay.log");
        let mut relaying = Process::start(&mut command, &log)?;
        relaying.wait_for_line("the relay listening", |line| {
            (line == "listening").then_some(())
        })?;
        let said = echo(scene.frontend(), "python3", "echo.py", listen)?;
        // A relay cannot pass a reset on as one: its own client sees the end of the stream.
        let is_expected =
            said.starts_with(expected) || target != scene.orders() && said.starts_with("different");
        ensure!(is_expected, "{target}: {said}");
    }
    Ok(())
}

fn nginx_as_a_proxy_and_with_sendfile(lab: &Lab) -> Result<()> {
    let (mesh, _agents) = Reference::start(lab)?;
    let content: Vec<u8> = (0..8_u32 << 20).flat_map(u32::to_le_bytes).collect();
    let root = lab.directory().join("content");
    std::fs::create_dir(&root)?;
    std::fs::write(root.join("file"), &content)?;
    let orders = mesh.orders.at(PORT);
    let serve = format!(
        "sendfile on; server {{ listen {orders}; root {}; }}",
        root.display()
    );
    let pass = format!(
        "proxy_max_temp_file_size 0; upstream orders {{ server {orders}; keepalive 4; }} \
         server {{ listen 127.0.0.1:7000; location / {{ proxy_pass http://orders; \
         proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}"
    );
    let _server = nginx(lab, mesh.orders.place(), "server", &serve)?;
    let _proxy = nginx(lab, mesh.frontend.place(), "proxy", &pass)?;
    let capture = Capture::start(lab)?;
    for number in 0..4 {
        let received = lab.directory().join(format!("received-{number}"));
        let mut curl = mesh.frontend.place().command("curl")?;
        curl.args(["--silent", "--show-error", "--fail", "--output"]);
        curl.arg(&received).arg("http://127.0.0.1:7000/file");
        let outcome = output(&mut curl)?;
        ensure!(outcome.status.success(), "curl: {}", outcome.stderr);
        ensure!(
            std::fs::read(&received)? == content,
            "the file is different"
        );
    }
    let captured = capture.finish()?;
    ensure!(!captured.is_empty() && !captured.contains(&content[..64]));
    Ok(())
}

fn nginx(lab: &Lab, place: &Place, name: &str, http: &str) -> Result<Process> {
    let prefix = lab.directory().join(name);
    std::fs::create_dir(&prefix)?;
    let configuration = prefix.join("nginx.conf");
    std::fs::write(
        &configuration,
        format!(
            "daemon off;\nuser root;\npid nginx.pid;\nerror_log stderr notice;\n\
             events {{}}\nhttp {{ access_log off;\n{http}\n}}\n"
        ),
    )?;
    let mut command = place.command("nginx")?;
    command.args(["-e", "stderr", "-p"]).arg(&prefix);
    command.arg("-c").arg(&configuration);
    let mut process = Process::start(&mut command, &prefix.join("log"))?;
    process
        .wait_for_line("nginx", |line| {
            line.contains("start worker process").then_some(())
        })
        .with_context(|| name.to_owned())?;
    Ok(process)
}
