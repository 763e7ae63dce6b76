//! istiod as the authority of the agents.

use ambit_tests::{Agent, Cluster, Istiod, Lab, NodeAccounts, NodeName, SOON, eventually};
use anyhow::{Result, ensure};

use super::ensure_carried;

pub(super) fn agents_get_certificates_of_istiod(lab: &Lab) -> Result<()> {
    let cluster = Cluster::start(lab)?;
    let _istiod = Istiod::start(&cluster, NodeAccounts::Agents)?;
    let [a, b] = lab.start_agents()?;
    ensure_carried(lab, &cluster)?;
    let of_a = a.certificates("identity")?;
    ensure!(of_a == ["frontend", "payments"].map(principal), "{of_a:?}");
    let of_b = b.certificates("identity")?;
    ensure!(of_b == [principal("orders")], "{of_b:?}");
    Ok(())
}

pub(super) fn certificates_of_istiod_are_renewed(lab: &Lab) -> Result<()> {
    let cluster = Cluster::start(lab)?;
    let _istiod = Istiod::start(&cluster, NodeAccounts::Agents)?;
    lab.set_certificate_lifetime(10);
    let agents = lab.start_agents()?;
    for _ in 0..3 {
        let known = serials(&agents)?;
        eventually(SOON, "renewed certificates", || {
            let new = serials(&agents).ok()?;
            let all = new.iter().all(|serial| !known.contains(serial));
            all.then_some(())
        })?;
        ensure_carried(lab, &cluster)?;
    }
    Ok(())
}

pub(super) fn an_account_that_istiod_does_not_trust_is_told_how(lab: &Lab) -> Result<()> {
    let cluster = Cluster::start(lab)?;
    let istiod = Istiod::start(&cluster, NodeAccounts::None)?;
    let [a, b] = NodeName::ALL;
    let mut agents = [lab.launch_agent(a)?, lab.launch_agent(b)?];
    for agent in &agents {
        let setting = "CA_TRUSTED_NODE_ACCOUNTS";
        eventually(SOON, "the setting by its name", || {
            agent.lacks_all_certificates(setting).ok()?.then_some(())
        })?;
    }
    drop(istiod);
    let _istiod = Istiod::start(&cluster, NodeAccounts::Agents)?;
    for agent in &mut agents {
        lab.wait_until_serving(agent)?;
    }
    ensure_carried(lab, &cluster)
}

fn principal(namespace: &str) -> String {
    format!("cluster.local/ns/{namespace}/sa/default")
}

fn serials(agents: &[Agent]) -> Result<Vec<String>> {
    let each = agents.iter().map(|agent| agent.certificates("serial"));
    Ok(each.collect::<Result<Vec<_>>>()?.concat())
}
