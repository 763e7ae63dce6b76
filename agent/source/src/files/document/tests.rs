use super::*;
use ambit_model::{MeshRanges, Revision, TrustBundle, TrustDomain};

fn parse_file(text: &str) -> Result<ParsedFile, Vec<DocumentError>> {
    let own = TrustDomain::new("cluster.local").expect("a trust domain");
    let settings = SourceSettings {
        trust_bundle: TrustBundle::without_aliases(own),
        root_namespace: "istio-system".into(),
        revision: Revision::default(),
        ranges: MeshRanges::default(),
    };
    parse(&Arc::new("/config/mesh.yaml".into()), text, &settings)
}

/// What is wrong with a file in which one thing is.
fn problem(text: &str) -> String {
    let errors = parse_file(text).expect_err("a problem");
    let [error] = &errors[..] else {
        panic!("{errors:?}")
    };
    format!("document {}: {error}", error.document)
}

/// Nested mappings, each on a line of its own.
fn nested(levels: usize) -> String {
    let level = |level: usize| format!("{}a:\n", " ".repeat(level));
    (0..levels).map(level).collect()
}

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: web}\n";

#[test]
fn the_number_of_errors_and_the_cost_of_locating_them_are_bounded() {
    let errors = parse_file(&"---\na\n".repeat(100_000)).expect_err("errors");
    let (last, others) = errors.split_last().expect("errors");
    assert!(others.len() == MOST_ERRORS && others.iter().all(|error| error.location.is_some()));
    assert!(last.problem.contains("has 1000 errors"), "{last}");
    let long = format!(
        "items:\n{}# {}\n",
        "- a\n".repeat(MOST_ERRORS),
        "x".repeat(1 << 20)
    );
    let list = parse_file(&format!("apiVersion: v1\nkind: List\n{long}")).expect_err("errors");
    assert!(list[7].location.is_some() && list[8].location.is_none());
    let items = "- a\n".repeat(MOST_ERRORS + 5);
    let list = format!("apiVersion: v1\nkind: List\nitems:\n{items}---\n{NAMESPACE}");
    assert_eq!(
        parse_file(&list).expect_err("errors").len(),
        MOST_ERRORS + 1
    );
}

/// Reading each of these took ten seconds and more.
#[test]
fn deep_nesting_is_refused_quickly_with_its_place() {
    let began = std::time::Instant::now();
    for (form, line) in [
        ("[".repeat(80_000), 6),
        ("{a: ".repeat(40_000), 6),
        ("[\n".repeat(80_000), 134),
        ("{\"a\":[".repeat(40_000), 6),
        ("- ".repeat(80_000), 6),
        ("? ".repeat(80_000), 6),
        (nested(560), 134),
        (format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)), 6),
        (format!("'[[[': [\"[[\", # [[[\n {}", "[".repeat(10_000)), 7),
    ] {
        let shown: String = form.chars().take(20).collect();
        let problem = problem(&format!("{NAMESPACE}---\n# here\n{form}"));
        let expected = format!("document 2: line {line}, column ");
        assert!(problem.starts_with(&expected), "{shown}: {problem}");
        assert!(
            problem.contains("deeper than 128 levels"),
            "{shown}: {problem}"
        );
    }
    // Generous: it takes hardly any time.
    let took = began.elapsed();
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
}
