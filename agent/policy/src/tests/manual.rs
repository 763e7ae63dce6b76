//! The manual explains every case that a source cites.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const MANUAL: &str = include_str!("../../MANUAL.md");

/// The letters of the cases: paths, hosts, headers, methods, identities, tokens, and the rest.
const LETTERS: &str = "PHRMIJT";

/// Names that look like cases: the curves of RFC 7518.
const CURVES: [&str; 3] = ["P-256", "P-384", "P-521"];

/// The ids in a text, such as `P-7`.
fn cited(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c));
    words
        .filter(|word| is_id(word) && !CURVES.contains(word))
        .map(str::to_owned)
        .collect()
}

fn is_id(word: &str) -> bool {
    let Some((letter, number)) = word.split_once('-') else {
        return false;
    };
    letter.len() == 1
        && LETTERS.contains(letter)
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// The ids in the names of tests: `fn p7_dot_segments`, `fn j_11_the_kid_chooses`.
fn in_names(text: &str) -> BTreeSet<String> {
    let names = text.split("fn ").skip(1);
    names
        .filter_map(|name| {
            let letter = name.chars().next()?.to_ascii_uppercase();
            let rest = name.get(1..)?;
            let rest = rest.strip_prefix('_').unwrap_or(rest);
            let (number, _) = rest.split_once('_')?;
            let id = format!("{letter}-{number}");
            is_id(&id).then_some(id)
        })
        .collect()
}

/// The ids that rows of the manual's tables begin with.
fn explained() -> BTreeSet<String> {
    let rows = MANUAL.lines().filter_map(|line| line.strip_prefix("| "));
    rows.flat_map(|row| cited(row.split(' ').next().unwrap_or_default()))
        .collect()
}

fn sources(directory: &Path, texts: &mut Vec<(String, String)>) {
    let entries = fs::read_dir(directory).expect("a directory of sources");
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            texts.push((path.display().to_string(), text));
        }
    }
}

#[test]
fn every_case_that_is_cited_is_explained() {
    let agent = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let tests = agent.join("../tests/tests");
    let mut texts = vec![("MANUAL.md".to_owned(), MANUAL.to_owned())];
    for directory in [
        agent.join("policy/src"),
        agent.join("jwt/src"),
        agent.join("authorizer/src"),
        agent.join("proxy/src"),
        tests,
    ] {
        sources(&directory, &mut texts);
    }
    let explained = explained();
    let mut count = 0;
    for (path, text) in &texts {
        for id in cited(text).union(&in_names(text)) {
            assert!(
                explained.contains(id),
                "{path} cites {id}, which agent/policy/MANUAL.md does not explain"
            );
            count += 1;
        }
    }
    assert!(count > 100, "only {count} cases are cited");
}

#[test]
fn similar_words_are_not_ids() {
    let ids = |text: &str| cited(text).into_iter().collect::<Vec<_>>();
    assert_eq!(ids("\"P-7\", J-10: (T-1)"), ["J-10", "P-7", "T-1"]);
    assert!(ids("ES256 on P-256, HTTP-2, p-7, RFC-7, X-1").is_empty());
    let names = in_names("fn p7_dots() {} fn j_11_kid() {} fn t10_mapped() fn port_1() fn i_x()");
    assert_eq!(
        names.into_iter().collect::<Vec<_>>(),
        ["J-11", "P-7", "T-10"]
    );
}
