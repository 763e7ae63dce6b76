//! How to look around in a mesh that was left up.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use ambit_tests::{Agent, Lab, Reference};
use anyhow::Result;

use crate::workspace;

/// Writes a script that runs a command in a pod, and returns what to try with it.
///
/// # Errors
///
/// If the script cannot be written.
pub(crate) fn instructions(lab: &Lab, mesh: &Reference, agents: &[Agent]) -> Result<String> {
    let enter = lab.directory().join("enter");
    fs::write(&enter, script(mesh))?;
    fs::set_permissions(&enter, Permissions::from_mode(0o755))?;
    let enter = enter.display();
    let order = mesh.orders_service.at();
    let charge = mesh.payments_service.at();
    let mut text = format!(
        "The mesh stays up. Things to try:\n\
         {enter} frontend curl -s http://{order}/order\n\
         {enter} frontend curl -s http://{charge}/charge\n\
         {enter} intruder curl -s http://{}/charge\n",
        mesh.payments.at(Reference::PORT),
    );
    for agent in agents {
        for verb in ["status", "workloads", "policies", "connections"] {
            text.push_str(&format!(
                "{} {verb} --socket {}\n",
                workspace::agent_binary().display(),
                agent.socket().display()
            ));
        }
    }
    text.push_str(&format!(
        "{} explain --socket {} --from frontend/default --to pod:orders/orders --port {} \
         --path /order/../admin\n",
        workspace::agent_binary().display(),
        agents[0].socket().display(),
        Reference::PORT,
    ));
    text.push_str(&format!(
        "ls {}   # change a policy: both agents watch this directory\n\
         cargo xtask demo --clean   # removes the mesh\n",
        lab.manifests().directory().display()
    ));
    Ok(text)
}

/// A pod is a network namespace and a control group: `ip netns exec` alone would enter the first
/// only, and its traffic would not pass the hooks of the second.
fn script(mesh: &Reference) -> String {
    let mut script =
        String::from("#!/bin/sh\n# enter POD COMMAND...\npod=$1; shift\ncase $pod in\n");
    for pod in mesh.pods() {
        let place = pod.place();
        script.push_str(&format!(
            "{}) echo $$ > {}/cgroup.procs; exec ip netns exec {} \"$@\";;\n",
            pod.name(),
            place.cgroup().display(),
            place.netns().name(),
        ));
    }
    script.push_str("*) echo \"no such pod: $pod\" >&2; exit 1;;\nesac\n");
    script
}
