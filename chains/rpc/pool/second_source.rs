//! Decides which endpoint may get a request, and which endpoints are independent of the endpoints that answered before.
//! Two endpoints are independent when their providers differ.

use std::collections::BTreeSet;

use super::Pool;
use crate::{Role, Target};

impl Pool {
    /// Returns the number of different providers among the endpoints with the role `read`. If one of these endpoints is
    /// the operator's own node, whose replies need no confirmation, the number is at least 2.
    pub fn count_providers_own_node_as_two(&self) -> usize {
        let providers = self.count_providers();
        if self.find_own_endpoint().is_some() { providers.max(2) } else { providers }
    }

    /// Returns the number of providers of the endpoints with the role `read`.
    pub fn count_providers(&self) -> usize {
        let readable = (0..self.endpoints.len()).filter(|i| self.endpoints[*i].endpoint.has_role(Role::Read));
        readable.map(|i| self.find_first_endpoint_of_provider(i)).collect::<BTreeSet<usize>>().len()
    }

    /// Returns the index of the first endpoint that has the same provider as `endpoint`. The index identifies the
    /// provider.
    pub fn find_first_endpoint_of_provider(&self, endpoint: usize) -> usize {
        (0..endpoint).find(|first| self.is_same_provider(*first, endpoint)).unwrap_or(endpoint)
    }

    /// Returns true if the endpoint at this index is the operator's own node.
    pub fn is_own(&self, endpoint: usize) -> bool {
        self.endpoints.get(endpoint).is_some_and(|state| state.endpoint.is_own())
    }

    /// Returns the target of the next request that must confirm a claim of some endpoints, or `None` when the claim is
    /// confirmed. `origins` are the endpoints that made the claim, or `None` when they are unknown; `answered` are the
    /// endpoints that have confirmed it so far. A claim is confirmed when, for each origin, an endpoint of another
    /// provider has answered. With unknown origins, two providers must have answered. The operator's own node needs no
    /// confirmation, and its answer confirms every claim.
    pub fn find_next_independent_target(&self, origins: Option<&[usize]>, answered: &[usize]) -> Option<Target> {
        if answered.iter().any(|endpoint| self.is_own(*endpoint)) {
            return None;
        }
        let lacks_second = |origin: usize| answered.iter().all(|endpoint| self.is_same_provider(*endpoint, origin));
        match (origins, answered.first()) {
            (Some(origins), _) => origins
                .iter()
                .find(|origin| !self.is_own(**origin) && lacks_second(**origin))
                .map(|origin| Target::Excluding(*origin)),
            (None, None) => Some(Target::From(self.find_own_endpoint().unwrap_or(0))),
            (None, Some(first)) => lacks_second(*first).then_some(Target::Excluding(*first)),
        }
    }

    /// Returns the names of the endpoints that made a claim, for a sentence. Names all endpoints when they are unknown.
    pub fn name_origins_or_all_endpoints(&self, origins: Option<&[usize]>) -> String {
        let name = |endpoints: &[usize]| {
            endpoints.iter().map(|endpoint| self.endpoint_label(*endpoint)).collect::<Vec<_>>().join(" and ")
        };
        match origins {
            Some(origins) => name(origins),
            None => format!("an endpoint among {}", name(&(0..self.endpoints.len()).collect::<Vec<_>>())),
        }
    }

    /// Returns the index of the endpoint that gets a request first, or `None` for the order of the configuration. The
    /// index may be above the last endpoint; the caller then continues at the first one.
    pub(super) fn find_start_index_for_target(&self, target: Target) -> Option<usize> {
        match target {
            Target::Any => None,
            Target::From(endpoint) | Target::Only(endpoint) | Target::Probe(endpoint) => Some(endpoint),
            Target::Excluding(endpoint) => {
                let own = self.find_own_endpoint().filter(|own| !self.is_excluded_by_target(target, *own));
                Some(own.unwrap_or(endpoint + 1))
            }
        }
    }

    /// Returns true if the endpoint at this index must not get a request with this target.
    pub(super) fn is_excluded_by_target(&self, target: Target, endpoint: usize) -> bool {
        match target {
            Target::Any | Target::From(_) => false,
            Target::Only(only) | Target::Probe(only) => endpoint != only,
            Target::Excluding(excluded) => self.is_same_provider(endpoint, excluded),
        }
    }

    fn is_same_provider(&self, one: usize, two: usize) -> bool {
        one == two || self.endpoints[one].provider == self.endpoints[two].provider
    }

    fn find_own_endpoint(&self) -> Option<usize> {
        self.endpoints.iter().position(|state| state.endpoint.is_own() && state.endpoint.has_role(Role::Read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Endpoint};

    /// A pool whose first two endpoints are one provider. The last one is the operator's own node if `own` is true.
    fn build_pool(own: bool) -> Pool {
        let urls =
            ["https://a.one.example/key", "https://b.one.example/key", "https://two.test", "http://10.0.0.1:8545"];
        let endpoints: Vec<Endpoint> =
            urls.iter().map(|url| Endpoint::new(url).unwrap().with_own(own && url.contains("10.0.0.1"))).collect();
        Pool::new(Config::new(endpoints)).unwrap()
    }

    #[test]
    fn endpoints_of_one_provider_count_once_and_an_own_node_is_enough() {
        assert_eq!(build_pool(false).count_providers_own_node_as_two(), 3);
        for (own, expected) in [(false, 1), (true, 2)] {
            let endpoint = Endpoint::new("http://10.0.0.1:8545").unwrap().with_own(own);
            assert_eq!(Pool::new(Config::new(vec![endpoint])).unwrap().count_providers_own_node_as_two(), expected);
        }
        let pool = build_pool(false);
        let excluded: Vec<bool> = (0..4).map(|i| pool.is_excluded_by_target(Target::Excluding(1), i)).collect();
        assert_eq!(excluded, [true, true, false, false]);
    }

    #[test]
    fn a_claim_needs_an_answer_from_outside_the_provider_of_each_origin() {
        let pool = build_pool(false);
        for (origins, answered, expected) in [
            (Some(&[0usize][..]), &[][..], Some(Target::Excluding(0))),
            (Some(&[0]), &[1], Some(Target::Excluding(0))),
            (Some(&[0]), &[2], None),
            (Some(&[0, 2]), &[2], Some(Target::Excluding(2))),
            (Some(&[0, 2]), &[2, 3], None),
            (None, &[], Some(Target::From(0))),
            (None, &[1], Some(Target::Excluding(1))),
            (None, &[1, 0], Some(Target::Excluding(1))),
            (None, &[1, 2], None),
        ] {
            assert_eq!(pool.find_next_independent_target(origins, answered), expected, "{origins:?} {answered:?}");
        }
    }

    #[test]
    fn the_own_node_is_asked_first_and_its_word_is_enough() {
        let pool = build_pool(true);
        assert_eq!(pool.find_start_index_for_target(Target::Excluding(0)), Some(3));
        assert_eq!(pool.find_start_index_for_target(Target::Excluding(3)), Some(4));
        assert_eq!(pool.find_next_independent_target(None, &[]), Some(Target::From(3)));
        assert_eq!(pool.find_next_independent_target(None, &[3]), None);
        assert_eq!(pool.find_next_independent_target(Some(&[3]), &[]), None);
        assert_eq!(pool.find_next_independent_target(Some(&[0, 3]), &[]), Some(Target::Excluding(0)));
    }
}
