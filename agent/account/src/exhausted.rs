//! The refusal of an account.

/// Whose account is used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// The pod has as much as one pod may have.
    Pod,
    /// The pod has used up its guaranteed share, and the pods together the common pool.
    Node,
    /// What is left of the pod's account is kept for what cannot be done without.
    Spare,
}

/// An account has too little left. Nothing was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct AccountExhausted {
    /// Whose account it is.
    pub owner: Owner,
    /// How many bytes were asked for.
    pub asked: usize,
    /// How many bytes the pod has in use.
    pub pod: usize,
    /// How many bytes one pod may have in use.
    pub pod_most: usize,
    /// How many bytes all pods have in use.
    pub node: usize,
    /// How many bytes they may have in use.
    pub limit: usize,
}

impl AccountExhausted {
    fn sentence(&self) -> String {
        let Self {
            owner,
            asked,
            pod,
            pod_most,
            node,
            limit,
        } = self;
        match owner {
            Owner::Pod => format!(
                "the pod's account of memory is used up: {asked} bytes more than its {pod} would be over the \
                 {pod_most} that one pod may have; a larger --memory raises that"
            ),
            Owner::Spare => format!(
                "the pod's account of memory has too little to spare: it has {pod} bytes in use, all pods have \
                 {node} of {limit}, and what is left is kept for new connections; give the agent more (--memory)"
            ),
            Owner::Node => format!(
                "the node's account of memory is used up: all pods have {node} of {limit} bytes in use, this pod \
                 {pod}, and {asked} more are beyond its guaranteed share; give the agent more (--memory)"
            ),
        }
    }
}
