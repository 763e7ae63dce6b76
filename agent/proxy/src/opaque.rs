//! Judges connections whose bytes are not HTTP, where the kernel asks.

use crate::authorizers::ask;
use crate::connection::events::Matter;
use crate::connection::refusal::Refusal;
use crate::ends::Ends;
use crate::shard::pod::ServedPod;
use crate::verdict::Judge;
use ambit_policy::{Approvals, Attributes, Permit};

/// Judges a connection, after those were asked whom CUSTOM policies name, and has noted what policies
/// want noted.
///
/// # Errors
/// [`Refusal`] where it is denied.
pub(crate) async fn judge_opaque(
    pod: &ServedPod,
    ends: Ends<'_>,
) -> Result<(Permit, Approvals), Refusal> {
    let connection = ends.attributes();
    let approvals = consult(pod, &connection, ends).await?;
    // Of this moment: whom only these policies would have had asked has not agreed.
    let view = pod.view();
    let judge = Judge::new(&view, &pod.workload);
    note(pod, &judge, ends);
    let permit = judge
        .opaque(&connection, &approvals)
        .map_err(Refusal::by_evaluator)?;
    Ok((permit, approvals))
}

async fn consult(
    pod: &ServedPod,
    connection: &Attributes,
    ends: Ends<'_>,
) -> Result<Approvals, Refusal> {
    let view = pod.view();
    let judge = Judge::new(&view, &pod.workload);
    let policies = judge.policies().map_err(Refusal::by_evaluator)?;
    let settings = view.snapshot.mesh_settings();
    let mut approvals = Approvals::default();
    for consultation in policies.consultations_on_opaque(connection) {
        match ask(pod, settings, &consultation, ends, None).await {
            Ok(_allowance) => approvals.add(consultation.provider),
            Err(disagreement) => {
                return Err(Refusal::NotApproved {
                    consultation,
                    disagreement,
                });
            }
        }
    }
    Ok(approvals)
}

fn note(pod: &ServedPod, judge: &Judge<'_>, ends: Ends<'_>) {
    let Ok(policies) = judge.policies() else {
        return;
    };
    let connection = ends.attributes();
    for note in policies.notes_on_opaque(&connection) {
        Matter::between(ends).noted(pod, &note);
        tracing::info!(
            target: "ambit::audit", note = note.as_str(), policy = %note.decider(),
            pod = %pod.workload.name, source = %connection.source,
            identity = connection.identity.as_ref().map(tracing::field::display),
            destination = %connection.destination, "connection"
        );
    }
}
