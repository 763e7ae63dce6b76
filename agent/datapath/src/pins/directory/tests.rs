use super::*;
use crate::testing::{is_root, mount_for_test};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("metadata").mode() & 0o7777
}

#[test]
fn another_versions_pins_are_not_taken_over() {
    if !is_root() {
        return;
    }
    let bpffs = mount_for_test();
    let base = bpffs.path().join("ambit");
    make_directory(&base.join("v9999"), &mut Vec::new()).expect("makes");
    let refused = PinDirectory::prepare(&base).expect_err("refused");
    assert!(matches!(&refused, PinDirectoryError::OtherLayout { found, .. } if found == "v9999"));
}

#[test]
fn the_directory_is_versioned_and_private() {
    if !is_root() {
        return;
    }
    let bpffs = mount_for_test();
    let base = bpffs.path().join("deep/ambit");
    let pins = PinDirectory::prepare(&base).expect("prepares");
    assert_eq!(pins.path(), base.join(format!("v{LAYOUT_VERSION}")));
    let pods = pins.subdirectory("pods").expect("makes");
    for path in [base.as_path(), pins.path(), pods.as_path()] {
        assert_eq!(mode(path), 0o700, "{}", path.display());
    }
}

#[test]
fn a_mounted_bpffs_is_not_mounted_over() {
    if !is_root() {
        return;
    }
    let bpffs = mount_for_test();
    let kept = bpffs.path().join("kept");
    std::fs::create_dir(&kept).expect("makes");
    let _pins = PinDirectory::prepare(bpffs.path()).expect("prepares");
    assert!(kept.exists());
}

#[test]
fn an_ordinary_directory_is_not_mounted_over_unless_it_is_empty() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let kept = directory.path().join("kept");
    std::fs::write(&kept, "mine").expect("writes");
    let base = directory.path();
    let elsewhere = tempfile::tempdir().expect("directory");
    let link = elsewhere.path().join("link");
    std::os::unix::fs::symlink(base, &link).expect("links");
    for tried in [PinDirectory::check, |base: &Path| {
        PinDirectory::prepare(base).map(drop)
    }] {
        let error = tried(base).expect_err("occupied");
        assert!(
            matches!(&error, PinDirectoryError::Occupied { found, .. } if found == "kept"),
            "{error}"
        );
        tried(&link).expect_err("a link to it");
        assert_eq!(std::fs::read_to_string(&kept).expect("read"), "mine");
    }
    std::fs::remove_file(&kept).expect("removes");
    PinDirectory::check(base).expect("empty");
    assert_eq!(std::fs::read_dir(base).expect("listed").count(), 0);
    let pins = PinDirectory::prepare(base).expect("empty");
    std::fs::write(&kept, "no bpffs takes this").expect_err("mounted");
    pins.undo();
    std::fs::write(&kept, "mine").expect("as before");
}

#[test]
fn what_a_start_made_is_undone_and_what_was_there_stays() {
    if !is_root() {
        return;
    }
    let bpffs = mount_for_test();
    let base = bpffs.path().join("deep/ambit");
    let pins = PinDirectory::prepare(&base).expect("prepares");
    pins.subdirectory("pods").expect("makes");
    pins.undo();
    assert!(!bpffs.path().join("deep").exists());
    let pins = PinDirectory::prepare(&base).expect("prepares");
    let pods = pins.subdirectory("pods").expect("makes");
    drop(pins);
    PinDirectory::prepare(&base).expect("takes over").undo();
    assert!(pods.exists());
}

#[test]
fn a_check_changes_nothing_and_finds_what_a_start_would() {
    if !is_root() {
        return;
    }
    let bpffs = mount_for_test();
    let base = bpffs.path().join("deep/ambit");
    PinDirectory::check(&base).expect("it could be made");
    assert!(!bpffs.path().join("deep").exists());
    let pins = PinDirectory::prepare(&base).expect("prepares");
    let error = PinDirectory::check(&base).expect_err("in use");
    assert!(matches!(error, PinDirectoryError::InUse { .. }), "{error}");
    drop(pins);
    std::fs::create_dir(base.join("v9999")).expect("makes");
    let error = PinDirectory::check(&base).expect_err("another layout");
    assert!(
        matches!(error, PinDirectoryError::OtherLayout { .. }),
        "{error}"
    );
}

#[test]
fn two_agents_cannot_have_it() {
    if !is_root() {
        return;
    }
    let bpffs = mount_for_test();
    let base = bpffs.path().join("ambit");
    let first = PinDirectory::prepare(&base).expect("prepares");
    let error = PinDirectory::prepare(&base).expect_err("in use");
    assert!(matches!(error, PinDirectoryError::InUse { .. }), "{error}");
    drop(first);
    PinDirectory::prepare(&base).expect("free again");
}

#[test]
fn somebody_elses_directory_is_refused() {
    if !is_root() {
        return;
    }
    let bpffs = mount_for_test();
    let base = bpffs.path().join("ambit");
    std::fs::create_dir(&base).expect("makes");
    std::os::unix::fs::chown(&base, Some(65534), None).expect("chown");
    let error = PinDirectory::prepare(&base).expect_err("foreign");
    assert!(
        matches!(error, PinDirectoryError::Foreign { owner: 65534, .. }),
        "{error}"
    );
}

#[test]
fn a_path_that_cannot_be_a_directory_is_an_error() {
    let file = tempfile::NamedTempFile::new().expect("file");
    let error = PinDirectory::prepare(&file.path().join("ambit")).expect_err("a file");
    assert!(
        matches!(error, PinDirectoryError::Prepare { .. }),
        "{error}"
    );
}
