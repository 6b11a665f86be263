//! Tests that the driver detects falsified replies and sends the request to another endpoint.

use bitcoin::{block::Header, consensus};
use btc::{Backend, Bitcoin};
use chain::{Source, SourceError};
use esplora::{Behaviour, Esplora};
use proxy::{Intervention, Proxy};
use serde_json::{Value, json};

use crate::world::{World, collect_transfers, read_blocks};

/// Mines a block with three payments, two of them to watched addresses, and returns its height.
async fn mine_payments(world: &World) -> u64 {
    for n in 0..3usize {
        world.pay(&[(&world.ours[n * 2], 1_000)]).await;
    }
    world.node.mine(1).await.unwrap();
    world.node.fetch_height().await.unwrap()
}

#[tokio::test]
async fn a_block_that_a_server_falsifies_comes_from_the_next_server() {
    let world = World::start().await;
    let height = mine_payments(&world).await;
    let expected_blocks = read_blocks(&world.build_driver(Backend::Core), height, height, &world.watched).await;
    assert_eq!(collect_transfers(&expected_blocks).len(), 2);
    let honest = Esplora::start_server(&world.node.url()).await;
    for behaviour in
        [Behaviour::OmitsTransaction, Behaviour::CorruptsTransaction, Behaviour::Down, Behaviour::Throttled]
    {
        let alone = world.build_driver(Backend::Esplora);
        let urls = [world.esplora.url.as_str(), honest.url.as_str()];
        let with_fallback = Bitcoin::from_config(world.build_config(Backend::Esplora, &urls)).unwrap();
        alone.tip().await.unwrap();
        world.esplora.set_behaviour(behaviour);
        let answer = alone.blocks(height, height, &world.watched).await;
        let is_expected = match behaviour {
            Behaviour::OmitsTransaction | Behaviour::CorruptsTransaction => {
                matches!(answer, Err(SourceError::InvalidResponse(_)))
            }
            Behaviour::Down
            | Behaviour::Throttled
            | Behaviour::RateLimited
            | Behaviour::Honest
            | Behaviour::HugeMempool => {
                matches!(answer, Err(SourceError::Unavailable(_)))
            }
        };
        assert!(is_expected, "{behaviour:?}: {answer:?}");
        assert_eq!(read_blocks(&with_fallback, height, height, &world.watched).await, expected_blocks, "{behaviour:?}");
        world.esplora.set_behaviour(Behaviour::Honest);
    }
}

/// Changes the bytes of a block in the reply.
fn edit_block_reply(edit: impl Fn(&mut Vec<u8>) + Send + 'static) -> Intervention {
    Intervention::Edit(Box::new(move |result: &mut Value| {
        let mut raw = const_hex::decode(result.as_str().unwrap()).unwrap();
        edit(&mut raw);
        *result = json!(const_hex::encode(raw));
    }))
}

/// Asserts that the driver rejects the block at this height when a proxy changes the answers.
async fn assert_block_rejected(
    world: &World,
    height: u64,
    intervene: impl Fn(&str, &Value) -> Intervention + Send + Sync + 'static,
) {
    let proxy = Proxy::start_proxy(&world.node.url(), intervene).await;
    let source = Bitcoin::from_config(world.build_config(Backend::Core, &[&proxy.url])).unwrap();
    let answer = source.blocks(height, height, &world.watched).await;
    assert!(matches!(answer, Err(SourceError::InvalidResponse(_))), "{answer:?}");
}

#[tokio::test]
async fn a_block_that_does_not_match_its_hash_or_its_roots_is_rejected() {
    let world = World::start().await;
    let height = mine_payments(&world).await;
    let on_block = |edit: fn(&mut Vec<u8>)| {
        move |method: &str, _: &Value| if method == "getblock" { edit_block_reply(edit) } else { Intervention::Pass }
    };
    // A byte in the witness of the last payment, which no transaction id covers.
    assert_block_rejected(
        &world,
        height,
        on_block(|raw| {
            let index = raw.len() - 10;
            raw[index] ^= 1;
        }),
    )
    .await;
    // A byte in the amount of the last payment.
    assert_block_rejected(
        &world,
        height,
        on_block(|raw| {
            let index = raw.len() - 145;
            raw[index] ^= 1;
        }),
    )
    .await;
    // A truncated block, and a block followed by another byte.
    assert_block_rejected(&world, height, on_block(|raw| raw.truncate(200))).await;
    assert_block_rejected(&world, height, on_block(|raw| raw.push(0))).await;
    // A header whose hash is not the requested one.
    assert_block_rejected(&world, height, on_block(|raw| raw[70] ^= 1)).await;
    // The block at the height below, in place of the requested one.
    let block_below = world.node.call_rpc("getblockhash", json!([height - 1])).await.unwrap();
    assert_block_rejected(&world, height, move |method, params| {
        if method == "getblockhash" && params[0] != json!(0) {
            Intervention::Result(block_below.clone())
        } else {
            Intervention::Pass
        }
    })
    .await;
}

#[tokio::test]
async fn a_header_without_proof_of_work_is_rejected() {
    let world = World::start().await;
    let height = world.node.fetch_height().await.unwrap();
    let hash = world.node.call_rpc("getbestblockhash", json!([])).await.unwrap();
    let raw = world.node.call_rpc("getblock", json!([hash, 0])).await.unwrap();
    let mut raw = const_hex::decode(raw.as_str().unwrap()).unwrap();
    // The same block with a nonce whose hash does not meet even the easiest target.
    let mut header: Header = consensus::deserialize(&raw[..80]).unwrap();
    while header.target().is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    raw[..80].copy_from_slice(&consensus::serialize(&header));
    let (hash, block) = (json!(header.block_hash().to_string()), json!(const_hex::encode(raw)));
    let intervene = move |method: &str, params: &Value| match method {
        "getblock" => Intervention::Result(block.clone()),
        "getblockhash" if params[0] != json!(0) => Intervention::Result(hash.clone()),
        _ => Intervention::Pass,
    };
    let proxy = Proxy::start_proxy(&world.node.url(), intervene).await;
    let source = Bitcoin::from_config(world.build_config(Backend::Core, &[&proxy.url])).unwrap();
    let answer = source.blocks(height, height, &world.watched).await;
    assert!(matches!(&answer, Err(SourceError::InvalidResponse(why)) if why.contains("work")), "{answer:?}");
}

/// The public server limits the request rate, and the driver does not know the limit. The driver slows down and still
/// reads all blocks.
#[tokio::test]
async fn a_rate_limited_server_is_read_to_the_end() {
    let world = World::start().await;
    let height = mine_payments(&world).await;
    world.node.mine(15).await.unwrap();
    let expected_blocks = read_blocks(&world.build_driver(Backend::Core), height, height + 15, &world.watched).await;
    world.esplora.set_behaviour(Behaviour::RateLimited);
    let rate_limited = world.build_driver(Backend::Esplora);
    assert_eq!(read_blocks(&rate_limited, height, height + 15, &world.watched).await, expected_blocks);
}

#[tokio::test]
async fn blocks_before_the_first_failed_request_are_returned() {
    let world = World::start().await;
    let height = mine_payments(&world).await;
    world.node.mine(15).await.unwrap();
    let intervene = move |method: &str, params: &Value| {
        let is_above = method == "getblockhash" && params[0].as_u64() > Some(height + 4);
        if is_above { Intervention::Error(-32603, "work queue depth exceeded") } else { Intervention::Pass }
    };
    let proxy = Proxy::start_proxy(&world.node.url(), intervene).await;
    let source = Bitcoin::from_config(world.build_config(Backend::Core, &[&proxy.url])).unwrap();
    let blocks = source.blocks(height, height + 15, &world.watched).await.unwrap();
    assert_eq!(blocks.len(), 5);
    let answer = source.blocks(height + 5, height + 15, &world.watched).await;
    assert!(matches!(answer, Err(SourceError::Unavailable(_))), "{answer:?}");
}
