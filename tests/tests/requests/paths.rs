//! P: paths, in every mode of normalisation.

use ambit_tests::{Lab, SOON, Site, eventually};
use anyhow::{Context, Result};

use crate::expected::{
    DENY_ADMIN,
    Expected::{Denied, Passes, Refused},
    ensure_comes, request,
};

/// The ConfigMap with Istio's mesh configuration.
fn mesh_config(normalization: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n\
         data:\n  mesh: |\n    pathNormalization: {{normalization: {normalization}}}\n"
    )
}

/// For each path the result under `DENY paths: [/admin]`, in the modes NONE, BASE,
/// MERGE_SLASHES and DECODE_AND_MERGE_SLASHES: `D` if it is denied, else what the application gets; `=`
/// is what was sent.
const PATHS: [(&str, &str, [&str; 4]); 36] = [
    ("P-1", "/admin?x=1", ["D"; 4]),
    ("P-1", "/admin?", ["D"; 4]),
    ("P-1", "/ok?/admin", ["="; 4]),
    ("P-2", "/admin#frag", ["D"; 4]),
    ("P-2", "/app#foo", ["/app"; 4]),
    ("P-2", "/admin#frag?x", ["D"; 4]),
    ("P-3", "/admin%23frag", ["="; 4]),
    ("P-4", "//admin", ["=", "=", "D", "D"]),
    ("P-4", "///admin", ["=", "=", "D", "D"]),
    ("P-5", "/%2fadmin", ["=", "=", "=", "D"]),
    ("P-5", "/%2Fadmin", ["=", "=", "=", "D"]),
    ("P-6", "/%5cadmin", ["=", "=", "=", "D"]),
    ("P-6", "/\\admin", ["=", "//admin", "D", "D"]),
    ("P-7", "/x/../admin", ["=", "D", "D", "D"]),
    ("P-7", "/./admin", ["=", "D", "D", "D"]),
    ("P-7", "/x/%2e%2e/admin", ["=", "D", "D", "D"]),
    ("P-7", "/x/.%2E/admin", ["=", "D", "D", "D"]),
    ("P-7", "/x/..\\admin", ["=", "D", "D", "D"]),
    ("P-7", "/../../admin", ["=", "D", "D", "D"]),
    ("P-8", "/%61dmin", ["=", "D", "D", "D"]),
    ("P-8", "/adm%69n", ["=", "D", "D", "D"]),
    ("P-9", "/%2561dmin", ["="; 4]),
    ("P-9", "/%252e%252e/admin", ["="; 4]),
    ("P-10", "/Admin", ["="; 4]),
    ("P-10", "/admin/", ["="; 4]),
    ("P-10", "/admin;a=b", ["="; 4]),
    // Applications leave parameters out.
    ("CVE-2026-73551", "/..;/admin", ["=", "D", "D", "D"]),
    ("CVE-2026-73551", "/x/..;a=b/admin", ["=", "D", "D", "D"]),
    ("CVE-2026-73551", "/x/%2e%2E;a/admin", ["=", "D", "D", "D"]),
    ("CVE-2026-73551", "/.;a=b/admin", ["=", "D", "D", "D"]),
    ("CVE-2026-73551", "/x/...;/admin", ["="; 4]),
    ("P-10", "/%c0%ae%c0%ae/admin", ["="; 4]),
    ("P-11", "/admin%00", ["400"; 4]),
    (
        "normalisation",
        "/app//../admin",
        ["=", "/app/admin", "/app/admin", "/app/admin"],
    ),
    ("normalisation", "/app//../../admin", ["=", "D", "D", "D"]),
    (
        "normalisation",
        "/xyz%30..//abc",
        ["=", "/xyz0..//abc", "/xyz0../abc", "/xyz0../abc"],
    ),
];

/// Under other policies, in the mode BASE.
const PATHS_OF_OTHER_POLICIES: [(&str, &str, &str, Option<&str>); 19] = [
    ("P-12", "p12", "/public/../private", None),
    ("P-12", "p12", "/public/%2E%2E/private", None),
    ("P-12", "p12", "/public/%2e/%2e%2e/private", None),
    ("P-12", "p12", "/public/../public", Some("/public")),
    ("P-12", "p12", "/publications", Some("/publications")),
    ("P-13", "p13", "/admin/a*b", None),
    ("P-13", "p13", "/admin/a", None),
    ("P-13", "p13", "/admin/a/b", Some("/admin/a/b")),
    ("P-14", "p14", "/admin/x[0]", None),
    ("P-14", "p14", "/admin/x\"y", None),
    ("P-14", "p14", "/admin/x|y", None),
    ("P-14", "p14", "/admin", Some("/admin")),
    ("P-15", "p15", "/allow/admin?param=v", None),
    (
        "P-15",
        "p15",
        "/allow/admin/?param=v",
        Some("/allow/admin/?param=v"),
    ),
    ("P-15", "p15", "/allow/admin/x/y", Some("/allow/admin/x/y")),
    ("P-16", "p16", "/allow/admin?p=v", None),
    ("P-16", "p16", "/allow", Some("/allow")),
    ("P-16", "p16", "/allow/other", Some("/allow/other")),
    ("P-16", "p16", "/other", None),
];

pub(crate) fn p_paths_are_judged_as_the_application_gets_them(lab: &Lab) -> Result<()> {
    let site = Site::start(
        lab,
        &[
            ("p1", &[DENY_ADMIN]),
            (
                "p17",
                &["rules: [{to: [{operation: {notPaths: [/admin]}}]}]"],
            ),
            (
                "p12",
                &["rules: [{to: [{operation: {paths: [/public*]}}]}]"],
            ),
            (
                "p13",
                &["action: DENY\nrules: [{to: [{operation: {paths: ['/admin/{*}']}}]}]"],
            ),
            (
                "p14",
                &["action: DENY\nrules: [{to: [{operation: {paths: ['/admin/{**}']}}]}]"],
            ),
            (
                "p15",
                &["rules: [{to: [{operation: {paths: ['/allow/admin/{**}']}}]}]"],
            ),
            (
                "p16",
                &[
                    "action: DENY\nrules: [{to: [{operation: {paths: [/allow/admin]}}]}]",
                    "rules: [{to: [{operation: {paths: [/allow*]}}]}]",
                ],
            ),
        ],
    )?;
    for (case, name, path, expected) in PATHS_OF_OTHER_POLICIES {
        ensure_path_comes(&site, name, path, expected.unwrap_or("D")).context(case)?;
    }
    let modes = ["NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"];
    for (index, mode) in modes.into_iter().enumerate() {
        lab.manifests().write("istio.yaml", &mesh_config(mode))?;
        wait_for_mode(&site, index)?;
        for (case, path, expected) in PATHS {
            // P-17: what a denial of a path refuses, an ALLOW rule for all other paths refuses too.
            for name in ["p1", "p17"] {
                let case = || format!("{case} in mode {mode}");
                ensure_path_comes(&site, name, path, expected[index]).with_context(case)?;
            }
        }
    }
    Ok(())
}

fn ensure_path_comes(site: &Site, name: &str, path: &str, expected: &str) -> Result<()> {
    let passed = match expected {
        "=" => path,
        other => other,
    };
    let line: &'static str = format!("GET {passed}").leak();
    let expected = match expected {
        "D" => Denied,
        "400" => Refused(400),
        _ => Passes(line),
    };
    let bytes = request(&format!("GET {path}"), &[]);
    ensure_comes(site, site.backend(name)?, &bytes, expected)
}

/// Waits until paths are normalised as the mode says, whose position among the modes this is.
fn wait_for_mode(site: &Site, mode: usize) -> Result<()> {
    let probe = "/probe/./x//y%2fz";
    let normal = [probe, "/probe/x//y%2fz", "/probe/x/y%2fz", "/probe/x/y/z"];
    eventually(SOON, "the mode of normalisation", || {
        ensure_path_comes(site, "p1", probe, normal[mode]).ok()
    })
}
