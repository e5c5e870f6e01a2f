//! How the providers' listings are, for the status document: from memory, never asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::listing::Health;
use super::{Node, Tree, owner};

/// How a provider's listings are.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ProviderHealth {
    /// The configured name.
    pub name: String,
    /// When any of its listings was last answered well.
    pub last_listing: Option<Timestamp>,
    /// Some listing shown is older than it should be.
    pub stale: bool,
    /// Why, or why there is nothing to show.
    pub error: Option<String>,
    /// Instances in its last listing.
    pub instances: usize,
}

impl ProviderHealth {
    fn unasked(name: &str) -> Self {
        ProviderHealth {
            name: name.to_owned(),
            last_listing: None,
            stale: false,
            error: None,
            instances: 0,
        }
    }

    fn include(&mut self, listing: Health) {
        self.last_listing = self.last_listing.max(listing.listed);
        if let Some(error) = listing.error {
            self.stale = true;
            self.error = Some(error);
        }
    }
}

impl Tree {
    /// How the listings of each provider are, in the order of their names; from memory.
    pub fn health(&self) -> Vec<ProviderHealth> {
        let mut all: BTreeMap<Arc<str>, ProviderHealth> = self
            .shared
            .providers
            .keys()
            .map(|name| (Arc::clone(name), ProviderHealth::unasked(name)))
            .collect();
        let listings: Vec<_> = {
            let table = self.shared.table();
            let listings = table.listings().filter_map(|(ino, node, listing)| {
                let instances = match node {
                    Node::Provider(_) => table.contents(ino)?.of(ino)?.len(),
                    _ => 0,
                };
                Some((Arc::clone(owner(node)?), instances, Arc::clone(listing)))
            });
            listings.collect()
        };
        for (name, instances, listing) in listings {
            if let Some(health) = all.get_mut(&name) {
                health.instances += instances;
                health.include(listing.health());
            }
        }
        all.into_values().collect()
    }
}
