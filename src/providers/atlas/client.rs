//! Asking Atlas: addresses, API versions with fall-back, complete lists. Knows no Provider.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::debug;
use url::Url;

use super::auth::Auth;
use super::paging::{Keyed, Listing, PAGE_SIZE};
use super::refusal::{error_code, refused};
use super::versions::{Form, Resource, Service, Spoken, not_served};
use super::wire::Page;
use crate::error::{Error, Kind, Result};
use crate::providers::http::{Answer, Api, Budget, Call, Effect};

/// What is asked: a resource of the project or of a cluster, or one item of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) resource: Resource,
    pub(super) cluster: Option<&'a str>,
    pub(super) item: Option<&'a str>,
}

/// What came back.
#[derive(Debug)]
pub(super) enum Reply {
    /// A success.
    Answer(Answer),
    /// The endpoint serves the resource in no version; nothing was done.
    NotServed(Answer),
}

/// One project's API.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) api: Arc<Api>,
    auth: Auth,
    endpoint: Url,
    project: String,
    spoken: Spoken,
}

impl Client {
    pub(super) fn new(api: Arc<Api>, auth: Auth, endpoint: Url, project: String) -> Self {
        Client {
            api,
            auth,
            endpoint,
            project,
            spoken: Spoken::default(),
        }
    }

    /// Asks in the version known to be served, else in each in turn. A refusal is an error.
    pub(super) async fn ask(
        &self,
        question: Question<'_>,
        query: &[(&str, String)],
        body: Option<&str>,
        budget: &mut Budget,
    ) -> Result<Reply> {
        let mut refusal = None;
        for form in self.spoken.order(question.resource) {
            let call = self.call(question, form, query, body);
            let answer = self.api.call(&call, &self.auth, budget).await?;
            if answer.status.is_success() {
                self.spoken.learn(question.resource, form);
                return Ok(Reply::Answer(answer));
            }
            if !not_served(answer.status, error_code(&answer).as_deref()) {
                return Err(refused(&answer));
            }
            debug!(
                ?call,
                ?answer,
                media = form.accept,
                "not served in this version"
            );
            refusal.get_or_insert(answer);
        }
        let answer = refusal.expect("every resource has at least one form");
        Ok(Reply::NotServed(answer))
    }

    /// Has a download made, as `wish` describes it: the only request that can cost money.
    pub(super) async fn request<W: Serialize>(
        &self,
        service: Service,
        cluster: &str,
        wish: &W,
    ) -> Result<Reply> {
        let body = serde_json::to_string(wish)
            .map_err(|error| Error::new(Kind::Internal, error.to_string()))?;
        let question = Question {
            resource: Resource::Download(service),
            cluster: Some(cluster),
            item: None,
        };
        let mut budget = self.api.budget();
        self.ask(question, &[], Some(&body), &mut budget).await
    }

    /// The whole list, or what the endpoint says if it serves no such list.
    pub(super) async fn list<T: Keyed + DeserializeOwned>(
        &self,
        resource: Resource,
        cluster: Option<&str>,
        budget: &mut Budget,
    ) -> Result<Result<Vec<T>, Answer>> {
        let question = Question {
            resource,
            cluster,
            item: None,
        };
        let mut listing = Listing::new(resource.paged());
        loop {
            let page = listing.next_page();
            let mut query = Vec::from_iter(resource.query());
            if resource.paged() || page > 1 {
                query.push(("pageNum", page.to_string()));
            }
            if resource.paged() {
                query.push(("itemsPerPage", PAGE_SIZE.to_string()));
            }
            let answer = match self.ask(question, &query, None, budget).await? {
                Reply::Answer(answer) => answer,
                Reply::NotServed(answer) => return Ok(Err(answer)),
            };
            if !listing.add(answer.json::<Page<T>>()?)? {
                return Ok(Ok(listing.items));
            }
        }
    }

    /// The downloads and restores of a cluster, or what the endpoint says if it has no such list.
    pub(super) async fn downloads<T: Keyed + DeserializeOwned>(
        &self,
        service: Service,
        cluster: &str,
        budget: &mut Budget,
    ) -> Result<Result<Vec<T>, Answer>> {
        let resource = Resource::Restores(service);
        match self.list(resource, Some(cluster), budget).await {
            // "No such restore" in answer to the whole list: there are none.
            Err(error) if error.kind() == Kind::Expired => Ok(Ok(Vec::new())),
            listed => listed,
        }
    }

    /// The download `id` as it stands; `None` once Atlas has forgotten it. An answer without
    /// content says nothing about it.
    pub(super) async fn download<T: Keyed + DeserializeOwned + Default>(
        &self,
        service: Service,
        cluster: &str,
        id: &str,
    ) -> Result<Option<T>> {
        let mut budget = self.api.budget();
        let question = Question {
            resource: Resource::Restores(service),
            cluster: Some(cluster),
            item: Some(id),
        };
        let answer = match self.ask(question, &[], None, &mut budget).await {
            Ok(Reply::Answer(answer)) => answer,
            Ok(Reply::NotServed(answer)) => {
                // Either the item is gone or the resource is not served at all: the list tells.
                let known = self.spoken.known(question.resource).is_some();
                let listed = self.downloads::<T>(service, cluster, &mut budget);
                let served = known || listed.await?.is_ok();
                return if served {
                    Ok(None)
                } else {
                    Err(refused(&answer))
                };
            }
            Err(error) if error.kind() == Kind::Expired => return Ok(None),
            Err(error) => return Err(error),
        };
        if answer.body.trim_ascii().is_empty() {
            return Ok(Some(T::default()));
        }
        Ok(Some(answer.json::<Option<T>>()?.unwrap_or_default()))
    }

    fn call(
        &self,
        question: Question<'_>,
        form: Form,
        query: &[(&str, String)],
        body: Option<&str>,
    ) -> Call {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty()
                .extend(["api", "atlas", form.version])
                .extend(question.resource.path(&self.project, question.cluster))
                .extend(question.item);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        match body {
            Some(body) => Call::post(url, Effect::Creates, "application/json", body.to_owned()),
            None => Call::get(url),
        }
        .accept(form.accept)
    }
}
