//! Checks each endpoint separately: verifies that it is a node of the configured network, and describes its height and
//! its sync state for the operator.

use chain::{Height, Identity, SourceError, source::EndpointReport};
use rpc::{RpcError, Target};

use crate::{Backend, Bitcoin, bitcoin_core, config::genesis_hash_of, esplora};

impl Bitcoin {
    /// Asks every endpoint for its genesis block and returns the hash of the genesis block as the identity of the
    /// network. One matching endpoint is enough; endpoints that do not answer are ignored.
    ///
    /// # Errors
    /// Fails if an endpoint that answers belongs to another network, or if no endpoint answers.
    pub(crate) async fn verify_network_of_endpoints(&self) -> Result<Identity, SourceError> {
        let expected = genesis_hash_of(self.config.network);
        let (mut failures, mut any_answered) = (Vec::new(), false);
        for endpoint in 0..self.pool.endpoints().len() {
            let label = self.pool.endpoint_label(endpoint);
            let answer = match self.config.backend {
                Backend::Core => bitcoin_core::fetch_genesis_hash(&self.pool, Target::Only(endpoint)).await,
                Backend::Esplora => esplora::fetch_genesis_hash(&self.pool, Target::Only(endpoint)).await,
            };
            match answer.map(|hash| hash.to_string()) {
                Ok(hash) if hash == expected => any_answered = true,
                Ok(hash) => {
                    return Err(SourceError::InvalidResponse(format!(
                        "the genesis block of {label} is {hash}, expected {expected}"
                    )));
                }
                Err(error) => failures.push(format!("{label}: {error}")),
            }
        }
        if any_answered { Ok(Identity { id: expected }) } else { Err(SourceError::Unavailable(failures.join("; "))) }
    }

    /// Checks all endpoints one after another and returns one report for each. A report also says how many blocks the
    /// endpoint is behind the highest endpoint.
    pub(crate) async fn report_endpoints(&self) -> Vec<EndpointReport> {
        let mut reports = Vec::new();
        for endpoint in 0..self.pool.endpoints().len() {
            reports.push((self.pool.endpoint_label(endpoint), self.probe_endpoint_and_record_height(endpoint).await));
        }
        let best = reports.iter().filter_map(|(_, report)| report.as_ref().ok()).map(|(height, _)| *height).max();
        let describe = |(height, text): (Height, String)| match best.map_or(0, |best| best - height) {
            0 => text,
            lag => format!("{text}, {lag} blocks behind the best"),
        };
        let report =
            |(endpoint, report): (String, Result<_, _>)| EndpointReport { endpoint, outcome: report.map(describe) };
        reports.into_iter().map(report).collect()
    }

    /// Checks that one endpoint belongs to the network and has downloaded all blocks. Records the height of its newest
    /// block in the pool, and returns this height and a description of the endpoint.
    async fn probe_endpoint_and_record_height(&self, endpoint: usize) -> Result<(Height, String), String> {
        let to_text = |error: RpcError| error.to_string();
        let genesis = match self.config.backend {
            Backend::Core => bitcoin_core::fetch_genesis_hash(&self.pool, Target::Probe(endpoint)).await,
            Backend::Esplora => esplora::fetch_genesis_hash(&self.pool, Target::Probe(endpoint)).await,
        }
        .map_err(to_text)?
        .to_string();
        if genesis != genesis_hash_of(self.config.network) {
            return Err(format!(
                "its genesis block is {genesis}: a node of another network than {}",
                self.config.network
            ));
        }
        let (height, text) = match self.config.backend {
            Backend::Core => {
                let info = bitcoin_core::fetch_chain_info(&self.pool, endpoint).await.map_err(to_text)?;
                let (blocks, headers) = (info.blocks, info.headers);
                if info.initialblockdownload || headers > blocks + 1 {
                    return Err(format!(
                        "still syncs: it has block {blocks} of {headers}; wait until it has all of them"
                    ));
                }
                let pruned = match (info.pruned, info.pruneheight) {
                    (false, _) => "complete".to_owned(),
                    (true, height) => format!(
                        "pruned below block {}: after a downtime longer than that, blocks are missing",
                        height.unwrap_or_default()
                    ),
                };
                (blocks, format!("Bitcoin Core, {}, head {blocks}, {pruned}", info.chain))
            }
            Backend::Esplora => {
                let height = esplora::fetch_head_height(&self.pool, endpoint).await.map_err(to_text)?;
                (height, format!("Esplora, head {height}, every block is verified"))
            }
        };
        self.pool.record_head(endpoint, height);
        Ok((height, text))
    }
}
