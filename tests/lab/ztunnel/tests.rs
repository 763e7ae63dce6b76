use std::os::unix::fs::OpenOptionsExt;

use super::*;

#[test]
fn a_path_that_cannot_be_executed_is_refused_with_the_reason() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let error = |path: &Path| {
        let refused = Ztunnel::at(path).err();
        format!(
            "{:#}",
            refused.context("accepted").unwrap_or_else(|error| error)
        )
    };
    let missing = directory.path().join("missing");
    assert!(error(&missing).starts_with("there is no proxy at "));
    assert!(error(directory.path()).contains("is not a file"));
    let file = directory.path().join("proxy");
    let open = |mode| {
        fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(mode)
            .open(&file)
    };
    open(0o644)?;
    assert!(error(&file).ends_with("is not executable"));
    fs::remove_file(&file)?;
    open(0o755)?;
    Ztunnel::at(&file)?;
    Ok(())
}

#[test]
fn workloads_are_written_as_ztunnels_own_example_has_them() -> Result<()> {
    let text = serde_norway::to_string(&configuration(&[]))?;
    let policies = "
workloads: []
policies:
  - action: Allow
    rules:
    - - - notDestinationPorts:
          - 9999
    name: callers
    namespace: null
    scope: Namespace
services: []
";
    let [written, expected]: [Value; 2] = [
        serde_norway::from_str(&text)?,
        serde_norway::from_str(policies)?,
    ];
    assert_eq!(written, expected);
    Ok(())
}

#[test]
fn only_what_the_proxy_did_not_mark_is_redirected() {
    let rule = redirection();
    assert!(rule.contains("meta mark != 1337"), "{rule}");
    assert!(rule.ends_with("redirect to :15001"), "{rule}");
}

#[test]
fn listeners_are_found_in_the_kernels_list() {
    let sockets = "  sl  local_address rem_address   st tx_queue rx_queue\n\
        0: 00000000000000000000000000000000:3A99 00000000000000000000000000000000:0000 0A 00000000\n\
        1: 0100007F:3AA0 0100007F:C350 01 00000000:00000000\n";
    assert!(is_listening(sockets, 15001));
    assert!(!is_listening(sockets, 15008));
}
