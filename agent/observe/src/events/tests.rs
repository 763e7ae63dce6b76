use super::*;
use ambit_model::WorkloadIdentity;
use ambit_policy::Layer;

fn event(kind: EventKind, pod: &str, source: &str) -> EventRecord {
    EventRecord {
        kind,
        direction: "inbound",
        decided_in: Layer::Proxy,
        hook: None,
        pod: Some(ObjectName::new("shop", pod)),
        source: source.parse().unwrap(),
        destination: "10.0.0.2:80".parse().unwrap(),
        identity: None,
        request: None,
        reason: "denied-by-policy",
        policy: Some("AuthorizationPolicy shop/a rule 0".to_owned()),
    }
}

fn denial(pod: &str, source: &str) -> EventRecord {
    event(EventKind::Denial, pod, source)
}

fn requests(pod: &str, source: &str, path: &str) -> EventRecord {
    EventRecord {
        request: Some(format!("GET {path}")),
        ..denial(pod, source)
    }
}

fn identified(name: &str) -> EventRecord {
    let id = format!("spiffe://cluster.local/ns/shop/sa/{name}");
    EventRecord {
        identity: Some(WorkloadIdentity::from_spiffe_id(&id).unwrap()),
        ..denial("web", "10.0.0.1:1")
    }
}

/// Records an event that is not logged.
fn record(recent: &RecentEvents, event: EventRecord) {
    let _ = recent.record(event);
}

fn of_pod(recent: &RecentEvents, pod: &str) -> Vec<RecentEvent> {
    let name = ObjectName::new("shop", pod);
    let mut events = recent.list();
    events.retain(|kept| kept.event.pod.as_ref() == Some(&name));
    events
}

#[test]
fn repeats_are_folded_with_their_times() {
    let recent = RecentEvents::default();
    let now = Instant::now();
    for (second, port) in [(5, 1), (6, 2), (9, 3)] {
        let at = Timestamp::from_second(second).unwrap();
        let _ = recent.record_at(denial("web", &format!("10.0.0.1:{port}")), at, now);
        let _ = recent.record_at(event(EventKind::Note, "web", "10.0.0.1:1"), at, now);
    }
    let events = recent.list();
    assert_eq!(events.len(), 2);
    for kept in events {
        assert_eq!((kept.count, kept.various), (3, false));
        let shown = serde_json::to_value(&kept).unwrap();
        assert_eq!(shown["first"], "1970-01-01T00:00:05.000Z");
        assert_eq!(shown["last"], "1970-01-01T00:00:09.000Z");
    }
}

#[test]
fn events_of_different_policies_are_kept_apart() {
    let recent = RecentEvents::default();
    for policy in ["a", "b"] {
        let mut event = denial("web", "10.0.0.1:1");
        event.policy = Some(policy.to_owned());
        record(&recent, event);
    }
    assert_eq!(recent.list().len(), 2);
}

#[test]
fn a_flood_at_one_pod_leaves_the_events_of_another() {
    let recent = RecentEvents::default();
    record(&recent, denial("victim", "10.0.0.1:1"));
    for number in 0..100_000 {
        record(
            &recent,
            requests("web", "10.0.0.9:1", &format!("/{number}")),
        );
    }
    for kind in [EventKind::Denial, EventKind::Note] {
        for number in 0..10_000 {
            let source = format!("10.1.{}.{}:1", number / 250, number % 250);
            record(&recent, event(kind, "web", &source));
        }
    }
    assert_eq!(of_pod(&recent, "victim").len(), 1);
    assert!(of_pod(&recent, "web").len() <= 2 * pod::GROUPS + 4);
    let total: u64 = recent.list().iter().map(|kept| kept.count).sum();
    assert_eq!(total + recent.losses().forgotten, 120_001);
}

#[test]
fn one_source_does_not_hide_another_at_the_same_pod() {
    let recent = RecentEvents::default();
    record(&recent, denial("web", "10.0.0.1:1"));
    record(&recent, identified("honest"));
    for number in 0..10_000 {
        // One holder of an IPv6 network, and one identity that every policy denies.
        record(&recent, denial("web", &format!("[2001:db8::{number:x}]:1")));
        let mut event = identified("loud");
        event.policy = Some(format!("policy {number}"));
        record(&recent, event);
    }
    let kept = of_pod(&recent, "web");
    assert_eq!(kept.len(), pod::GROUPS);
    assert!(
        kept.iter()
            .any(|kept| kept.event == denial("web", "10.0.0.1:1"))
    );
    assert!(kept.iter().any(|kept| kept.event == identified("honest")));
}

#[test]
fn forged_addresses_do_not_hide_verified_callers() {
    let recent = RecentEvents::default();
    for number in 0..pod::GROUPS / 2 {
        record(&recent, identified(&format!("caller-{number}")));
    }
    for number in 0..10_000 {
        record(
            &recent,
            denial("web", &format!("10.1.{}.{}:1", number / 250, number % 250)),
        );
    }
    let kept = of_pod(&recent, "web");
    let verified = kept.iter().filter(|kept| kept.event.identity.is_some());
    assert_eq!(verified.count(), pod::GROUPS / 2);
}

#[test]
fn the_first_requests_are_kept_apart_and_the_rest_together() {
    let recent = RecentEvents::default();
    for path in ["/a", "/b", "/a", "/c", "/d", "/e", "/f", "/b"] {
        record(&recent, requests("web", "10.0.0.1:1", path));
    }
    let mut kept: Vec<_> = recent
        .list()
        .into_iter()
        .map(|kept| (kept.event.request.unwrap(), kept.count, kept.various))
        .collect();
    kept.sort();
    let expected = [
        ("GET /a", 2, false),
        ("GET /b", 2, false),
        ("GET /c", 1, false),
        ("GET /f", 3, true),
    ];
    assert_eq!(
        kept,
        expected.map(|(request, count, various)| (request.to_owned(), count, various))
    );
}

#[test]
fn all_pods_together_are_bounded() {
    let recent = RecentEvents::default();
    for number in 0..2 * PODS {
        for source in 0..16 {
            record(
                &recent,
                denial(&number.to_string(), &format!("10.0.0.{source}:1")),
            );
        }
    }
    let events = recent.list();
    assert!(events.len() <= GROUPS, "{}", events.len());
    let kept = recent.0.lock().unwrap();
    assert_eq!(kept.pods.len(), PODS);
    let groups: usize = kept.pods.values().map(|pod| pod.events.groups()).sum();
    assert_eq!(groups, kept.groups);
    assert_eq!(
        events.len() as u64 + kept.losses.forgotten,
        32 * PODS as u64
    );
}

#[test]
fn a_flood_has_few_lines_and_another_source_has_its_own() {
    let recent = RecentEvents::default();
    let (at, now) = (Timestamp::UNIX_EPOCH, Instant::now());
    let written = (0..10_000).filter(|number| {
        let event = requests("web", "10.0.0.9:1", &format!("/{number}"));
        recent.record_at(event, at, now) == InLog::Written
    });
    assert_eq!(written.count(), lines::LINES as usize + 4);
    let other = recent.record_at(denial("web", "10.0.0.1:1"), at, now);
    assert_eq!(other, InLog::Written);
    let noted = event(EventKind::Note, "web", "10.0.0.9:1");
    assert_eq!(recent.record_at(noted, at, now), InLog::Written);
    let left_out = LeftOut {
        pod: Some(ObjectName::new("shop", "web")),
        lines: 10_000 - u64::from(lines::LINES) - 4,
    };
    assert_eq!(recent.losses().left_out_of_log, left_out.lines);
    assert_eq!(recent.take_left_out(), [left_out]);
    assert_eq!(recent.take_left_out(), []);
}
