//! Requests to an API server, by curl.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::object::{self, Account};
use super::text;
use crate::client::{Reply, request};
use crate::place::Place;
use crate::pod::Pod;

/// The token of a user with all rights.
pub(super) const OPERATOR: &str = "operator";

/// An API server as its operator sees it.
pub struct Api {
    pub(super) place: Place,
    pub(super) address: SocketAddr,
    /// Of the API server's files, and of those that are made here.
    pub(super) directory: PathBuf,
}

impl Api {
    /// Creates an object.
    ///
    /// # Errors
    ///
    /// If it is refused.
    pub fn create(&self, object: &Value) -> Result<()> {
        let path = object::collection(object)?;
        self.send("POST", &path, object).map(drop)
    }

    /// Creates a service account, and its namespace if there is none.
    ///
    /// # Errors
    ///
    /// If it is refused.
    pub fn create_account(&self, account: Account<'_>) -> Result<()> {
        let namespace = account.namespace;
        if self
            .get(&format!("/api/v1/namespaces/{namespace}"))
            .is_err()
        {
            self.create(&object::namespace(namespace))?;
        }
        self.create(&object::service_account(account))
    }

    /// Gives an account rights in the whole cluster: the rules of a ClusterRole.
    ///
    /// # Errors
    ///
    /// If they are refused.
    pub fn allow(&self, account: Account<'_>, rules: &Value) -> Result<()> {
        let objects = object::role(account, rules);
        objects.iter().try_for_each(|object| self.create(object))
    }

    /// Deletes a pod immediately.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn delete_pod(&self, pod: &Pod) -> Result<()> {
        let path = format!("/api/v1/namespaces/{}/pods/{}", pod.namespace(), pod.name());
        // Nothing else would report that it has ended: no kubelet runs here.
        let at_once = json!({"gracePeriodSeconds": 0});
        self.send("DELETE", &path, &at_once).map(drop)
    }

    /// A token of an account for an audience, or for the API server itself if there is none; bound to
    /// an object, if there is one.
    ///
    /// # Errors
    ///
    /// If the API server does not give one.
    pub fn token(
        &self,
        account: Account<'_>,
        audiences: &[&str],
        bound_to: Option<&Value>,
    ) -> Result<String> {
        let Account { namespace, name } = account;
        let asked = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audiences,
                "expirationSeconds": 3600,
                "boundObjectRef": bound_to,
            },
        });
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let answer = self.send("POST", &path, &asked)?;
        Ok(text(&answer, "/status/token")?.to_owned())
    }

    /// The keys that verify the tokens.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn published_keys(&self) -> Result<Value> {
        self.get("/openid/v1/jwks")
    }

    /// A kubeconfig with all rights.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn kubeconfig(&self) -> Result<PathBuf> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": {
                "server": format!("https://{}", self.address),
                "certificate-authority": self.certificate(),
            }}],
            "users": [{"name": "lab", "user": {"token": OPERATOR}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
            "current-context": "lab",
        });
        let file = self.directory.join("kubeconfig");
        fs::write(&file, config.to_string())?;
        Ok(file)
    }

    /// A command that becomes what follows it, with the files and the environment that a kubelet would
    /// give to a pod of this account.
    ///
    /// # Errors
    ///
    /// If the account gets no token.
    pub fn as_pod_of(&self, account: Account<'_>) -> Result<Vec<String>> {
        let mounted = self.directory.join(account.name);
        fs::create_dir(&mounted)?;
        fs::write(mounted.join("token"), self.token(account, &[], None)?)?;
        fs::copy(self.certificate(), mounted.join("ca.crt"))?;
        fs::write(mounted.join("namespace"), account.namespace)?;
        let mount = "mount -t tmpfs none /var && mkdir -p /var/run/secrets/kubernetes.io && \
            ln -s \"$0\" /var/run/secrets/kubernetes.io/serviceaccount && exec \"$@\"";
        let (host, port) = (self.address.ip(), self.address.port());
        Ok([
            &format!("KUBERNETES_SERVICE_HOST={host}"),
            &format!("KUBERNETES_SERVICE_PORT={port}"),
            "unshare",
            "--mount",
            "sh",
            "-c",
            mount,
            &mounted.display().to_string(),
        ]
        .map(str::to_owned)
        .to_vec())
    }

    /// A token of a user that is not a service account.
    pub fn operators_token(&self) -> &'static str {
        OPERATOR
    }

    fn certificate(&self) -> PathBuf {
        self.directory.join("certificates/apiserver.crt")
    }

    pub(super) fn get(&self, path: &str) -> Result<Value> {
        self.call(path, &["--request", "GET"])
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = body.to_string();
        self.call(path, &["--request", method, "--data", &body])
    }

    fn call(&self, path: &str, arguments: &[&str]) -> Result<Value> {
        let (certificate, url) = (
            self.certificate(),
            format!("https://{}{path}", self.address),
        );
        let certificate = certificate.to_string_lossy();
        let bearer = format!("Authorization: Bearer {OPERATOR}");
        let mut all = vec!["--cacert", &certificate, "--header", &bearer];
        all.extend(["--header", "Content-Type: application/json"]);
        all.extend(arguments);
        all.push(&url);
        match request(&self.place, &all)? {
            Reply::Answer(body) => serde_json::from_str(&body)
                .with_context(|| format!("the API server answers {body}")),
            other => bail!("{arguments:?} {path}: {other:?}"),
        }
    }
}
