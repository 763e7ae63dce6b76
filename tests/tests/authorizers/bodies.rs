//! `includeRequestBodyInCheck`: what authorizers see of bodies, and what applications get.

use std::fs;
use std::path::{Path, PathBuf};

use ambit_tests::{
    GrpcAuthorizer, Http2Call, Http2Request, Lab, Nginx, NodeName, RawCall, Reply, Site, Until,
    WebServer, request,
};
use anyhow::{Context, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};

use super::{ALLOWING, GRPC, GRPC_API, HTTP, custom, ensure_status, mesh_config, outside};

/// What the authorizers may see.
const LIMIT: usize = 8192;

const WHOLE: &str = ", includeRequestBodyInCheck: {maxRequestBytes: 8192}";
const PARTIAL: &str =
    ", includeRequestBodyInCheck: {maxRequestBytes: 8192, allowPartialMessage: true}";
const PACKED: &str = ", includeRequestBodyInCheck: {maxRequestBytes: 8192, \
                      allowPartialMessage: true, packAsBytes: true}";

/// A file of this many bytes, no two parts of which are equal.
fn file(lab: &Lab, length: usize) -> Result<(PathBuf, Vec<u8>)> {
    let numbers = (0..).flat_map(|number: u32| format!("{number:07}.").into_bytes());
    let bytes: Vec<u8> = numbers.take(length).collect();
    let path = lab.directory().join(format!("body-{length}"));
    fs::write(&path, &bytes)?;
    Ok((path, bytes))
}

/// Uploads a file with curl.
fn upload(site: &Site, name: &str, options: &[&str], file: &Path) -> Result<Reply> {
    let url = format!("http://{}/checked/upload", site.backend(name)?.service.at());
    let data = format!("@{}", file.display());
    let mut arguments = options.to_vec();
    arguments.extend(["--data-binary", &data, &url]);
    request(site.caller.place(), &arguments)
}

fn digest_of(bytes: &[u8]) -> String {
    let octets = digest(&SHA256, bytes);
    octets
        .as_ref()
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect()
}

/// Uploads, and ensures that the application gets all of it.
fn ensure_passes(
    site: &Site,
    name: &str,
    options: &[&str],
    body: &(PathBuf, Vec<u8>),
) -> Result<()> {
    let reply = upload(site, name, options, &body.0)?;
    ensure!(reply.is_answer(), "{name} {options:?}: {reply:?}");
    let got = site.backend(name)?.web.digests();
    ensure!(
        got.last() == Some(&digest_of(&body.1)),
        "{name} {options:?}: the application got another body of {}",
        body.1.len()
    );
    Ok(())
}

/// Uploads, and ensures that it is refused and the application sees nothing.
fn ensure_refused(site: &Site, name: &str, options: &[&str], file: &Path) -> Result<()> {
    let known = site.backend(name)?.web.heads().len();
    let reply = upload(site, name, options, file)?;
    let new = site.backend(name)?.web.heads().len() - known;
    ensure!(
        matches!(reply, Reply::Status(413, _)) && new == 0,
        "{name} {options:?}: {reply:?}, and the application saw {new}"
    );
    Ok(())
}

const CHUNKED: &str = "Transfer-Encoding: chunked";
const EXPECT: &str = "Expect: 100-continue";

pub(super) fn authorizers_are_shown_bodies(lab: &Lab) -> Result<()> {
    let node = lab.node(NodeName::B)?;
    lab.manifests().write(
        "istio.yaml",
        &mesh_config(&[
            ("http-whole", HTTP, ALLOWING, WHOLE),
            ("http-partial", HTTP, ALLOWING, PARTIAL),
            ("grpc-whole", GRPC_API, GRPC, WHOLE),
            ("grpc-packed", GRPC_API, GRPC, PACKED),
        ]),
    )?;
    let http = WebServer::start(lab, &node, &[outside(ALLOWING)])?;
    let grpc = GrpcAuthorizer::start(lab, &node, outside(GRPC))?;
    let names = ["http-whole", "http-partial", "grpc-whole", "grpc-packed"];
    let policies = names.map(custom);
    let policies: Vec<[&str; 1]> = policies.iter().map(|one| [one.as_str()]).collect();
    let backends: Vec<(&'static str, &[&str])> = names
        .into_iter()
        .zip(policies.iter().map(<[&str; 1]>::as_slice))
        .collect();
    let site = Site::start(lab, &backends)?;
    let (small, limit) = (file(lab, 100)?, file(lab, LIMIT)?);
    let (over, large) = (file(lab, LIMIT + 1)?, file(lab, 1 << 20)?);
    let ways: [&[&str]; 4] = [
        &["--header", "Expect:"],
        &["--header", EXPECT],
        &["--header", CHUNKED, "--header", "Expect:"],
        &["--header", CHUNKED, "--header", EXPECT],
    ];
    for way in ways {
        for name in names {
            ensure_passes(&site, name, way, &small)?;
            ensure_passes(&site, name, way, &limit)?;
        }
        for name in ["http-partial", "grpc-packed"] {
            ensure_passes(&site, name, way, &large)?;
        }
        for name in ["http-whole", "grpc-whole"] {
            ensure_refused(&site, name, way, &over.0)?;
            ensure_refused(&site, name, way, &large.0)?;
        }
    }
    what_http_sees(&site, &http, [&small, &large])?;
    what_grpc_sees(&site, &grpc, [&small, &large])?;
    the_body_decides(&site)?;
    ensure_status(&site, "http-whole", "/checked/no-body", 200, "")
}

fn what_http_sees(
    site: &Site,
    http: &WebServer,
    [small, large]: [&(PathBuf, Vec<u8>); 2],
) -> Result<()> {
    for (body, seen, partial) in [(small, 100, "false"), (large, LIMIT, "true")] {
        ensure_passes(site, "http-partial", &[], body)?;
        let head = http.heads().pop().context("it was not asked")?;
        let told = format!("x-envoy-auth-partial-body: {partial}");
        ensure!(
            head.contains(&told) && !head.contains("100-continue"),
            "{head}"
        );
        let digest = http.digests().pop();
        ensure!(
            http.bodies().last() == Some(&(seen as u64))
                && digest == Some(digest_of(&body.1[..seen])),
            "it saw another body"
        );
    }
    Ok(())
}

fn what_grpc_sees(
    site: &Site,
    grpc: &GrpcAuthorizer,
    [small, large]: [&(PathBuf, Vec<u8>); 2],
) -> Result<()> {
    for (name, body, seen) in [("grpc-whole", small, 100), ("grpc-packed", large, LIMIT)] {
        ensure_passes(site, name, &[], body)?;
        let log = grpc.log();
        let check = log.lines().last().context("it was not asked")?;
        let shown = std::str::from_utf8(&body.1[..seen])?;
        let more = std::str::from_utf8(&body.1[..(seen + 1).min(body.1.len())])?;
        ensure!(
            check.contains(shown) && (seen == 100 || !check.contains(more)),
            "{name}: it saw another body"
        );
    }
    Ok(())
}

/// The lab's gRPC authorizer denies checks that contain `/deny` anywhere.
fn the_body_decides(site: &Site) -> Result<()> {
    for name in ["grpc-whole", "grpc-packed"] {
        let web = &site.backend(name)?.web;
        for (body, status) in [("please", 200), ("/deny", 401), ("please", 200)] {
            let known = web.heads().len();
            let bytes = format!(
                "POST /checked/x HTTP/1.1\r\nHost: web\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let call = RawCall {
                to: site.backend(name)?.service.at(),
                bytes: bytes.as_bytes(),
                until: Until::Answers(1),
            };
            let reply = call.make(site.caller.place())?;
            let new = web.heads().len() - known;
            ensure!(
                reply.statuses() == [status] && new == usize::from(status == 200),
                "{name} {body}: {reply:?}, and the application saw {new}"
            );
        }
    }
    Ok(())
}

pub(super) fn bodies_of_http_2_are_shown(lab: &Lab) -> Result<()> {
    let node = lab.node(NodeName::B)?;
    lab.manifests().write(
        "istio.yaml",
        &mesh_config(&[
            ("whole", GRPC_API, GRPC, WHOLE),
            ("packed", GRPC_API, GRPC, PACKED),
        ]),
    )?;
    let grpc = GrpcAuthorizer::start(lab, &node, outside(GRPC))?;
    Site::declare(lab, "whole", PORT, "http")?;
    Site::declare(lab, "packed", PORT, "http")?;
    let policies = ["whole", "packed"].map(custom);
    let site = Site::start(
        lab,
        &[("whole", &[&policies[0]]), ("packed", &[&policies[1]])],
    )?;
    let (over, _) = file(lab, LIMIT + 1)?;
    for name in ["whole", "packed"] {
        let pod = &site.backend(name)?.pod;
        let _nginx = Nginx {
            name,
            listen: &[pod.at(PORT)],
            protocol: "http2",
            locations: "location / { return 200 \"answered\"; }",
        }
        .start(lab, pod.place())?;
        let post = |body| Http2Request {
            method: "POST",
            body,
            ..Http2Request::get("/checked/x")
        };
        let call = Http2Call {
            to: pod.at(PORT),
            requests: &[post("a body of HTTP/2"), post("/deny"), post("another")],
            at_once: true,
        };
        let replies = call.make(site.caller.place())?;
        let statuses: Vec<_> = replies
            .iter()
            .map(|reply| reply["status"].as_u64())
            .collect();
        ensure!(
            statuses == [Some(200), Some(401), Some(200)],
            "{name}: {replies:?}"
        );
        let url = format!("http://{}/checked/x", pod.at(PORT));
        let data = format!("@{}", over.display());
        // If curl waits for 100-continue and is refused, it treats the end of the stream as a failure.
        let headers: &[&str] = match name {
            "whole" => &["Expect:"],
            _ => &["Expect:", EXPECT],
        };
        for header in headers {
            let arguments = [
                "--http2-prior-knowledge",
                "--header",
                header,
                "--data-binary",
                &data,
                &url,
            ];
            let reply = request(site.caller.place(), &arguments)?;
            let as_expected = match name {
                "whole" => matches!(reply, Reply::Status(413, _)),
                _ => reply.is_answer(),
            };
            ensure!(as_expected, "{name} {header}: {reply:?}");
        }
    }
    ensure!(grpc.log().contains("a body of HTTP/2"), "{}", grpc.log());
    Ok(())
}

/// The port of the HTTP/2 servers.
const PORT: u16 = 8081;
