//! Nothing that a server says is used unless the chain proves it; another one answers instead.

use bitcoin::{block::Header, consensus};
use btc::{Access, Bitcoin};
use chain::{Source, SourceError};
use esplora::{Behaviour, Esplora};
use proxy::{Intervention, Proxy};
use serde_json::{Value, json};

use crate::world::{World, read, transfers};

/// A block with three payments, two of them to us.
async fn paid(world: &World) -> u64 {
    for n in 0..3usize {
        world.pay(&[(&world.ours[n * 2], 1_000)]).await;
    }
    world.node.mine(1).await.unwrap();
    world.node.height().await.unwrap()
}

#[tokio::test]
async fn what_a_public_server_hides_or_invents_is_asked_elsewhere() {
    let world = World::start().await;
    let height = paid(&world).await;
    let truth = read(&world.bitcoin(Access::Core), height, height, &world.watched).await;
    assert_eq!(transfers(&truth).len(), 2);
    let honest = Esplora::start(&world.node.url()).await;
    for mood in [Behaviour::OmitsTransaction, Behaviour::CorruptsTransaction, Behaviour::Down, Behaviour::Throttled] {
        let alone = world.bitcoin(Access::Esplora);
        let urls = [world.esplora.url.as_str(), honest.url.as_str()];
        let helped = Bitcoin::new(world.config(Access::Esplora, &urls)).unwrap();
        alone.tip().await.unwrap();
        world.esplora.set_behaviour(mood);
        let answer = alone.blocks(height, height, &world.watched).await;
        let expected = match mood {
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
        assert!(expected, "{mood:?}: {answer:?}");
        assert_eq!(read(&helped, height, height, &world.watched).await, truth, "{mood:?}");
        world.esplora.set_behaviour(Behaviour::Honest);
    }
}

/// The block's bytes, changed.
fn changed(edit: impl Fn(&mut Vec<u8>) + Send + 'static) -> Intervention {
    Intervention::Edit(Box::new(move |result: &mut Value| {
        let mut raw = const_hex::decode(result.as_str().unwrap()).unwrap();
        edit(&mut raw);
        *result = json!(const_hex::encode(raw));
    }))
}

async fn refused(world: &World, height: u64, trick: impl Fn(&str, &Value) -> Intervention + Send + Sync + 'static) {
    let proxy = Proxy::start(&world.node.url(), trick).await;
    let source = Bitcoin::new(world.config(Access::Core, &[&proxy.url])).unwrap();
    let answer = source.blocks(height, height, &world.watched).await;
    assert!(matches!(answer, Err(SourceError::InvalidResponse(_))), "{answer:?}");
}

#[tokio::test]
async fn a_block_is_believed_only_with_its_commitments() {
    let world = World::start().await;
    let height = paid(&world).await;
    let on_block = |edit: fn(&mut Vec<u8>)| {
        move |method: &str, _: &Value| if method == "getblock" { changed(edit) } else { Intervention::Pass }
    };
    // Of the witness of the last payment only, which no transaction's name covers.
    refused(
        &world,
        height,
        on_block(|raw| {
            let place = raw.len() - 10;
            raw[place] ^= 1;
        }),
    )
    .await;
    // Of its last payment's amount.
    refused(
        &world,
        height,
        on_block(|raw| {
            let place = raw.len() - 145;
            raw[place] ^= 1;
        }),
    )
    .await;
    // Cut off, and with something after the end.
    refused(&world, height, on_block(|raw| raw.truncate(200))).await;
    refused(&world, height, on_block(|raw| raw.push(0))).await;
    // Another header, which hashes to something else.
    refused(&world, height, on_block(|raw| raw[70] ^= 1)).await;
    // The block below, under this height.
    let below = world.node.rpc("getblockhash", json!([height - 1])).await.unwrap();
    refused(&world, height, move |method, params| {
        if method == "getblockhash" && params[0] != json!(0) {
            Intervention::Result(below.clone())
        } else {
            Intervention::Pass
        }
    })
    .await;
}

#[tokio::test]
async fn a_header_costs_what_mining_costs() {
    let world = World::start().await;
    let height = world.node.height().await.unwrap();
    let hash = world.node.rpc("getbestblockhash", json!([])).await.unwrap();
    let raw = world.node.rpc("getblock", json!([hash, 0])).await.unwrap();
    let mut raw = const_hex::decode(raw.as_str().unwrap()).unwrap();
    // The same block with a nonce that was not worked for: its hash misses even the easiest target there is.
    let mut header: Header = consensus::deserialize(&raw[..80]).unwrap();
    while header.target().is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    raw[..80].copy_from_slice(&consensus::serialize(&header));
    let (name, block) = (json!(header.block_hash().to_string()), json!(const_hex::encode(raw)));
    let trick = move |method: &str, params: &Value| match method {
        "getblock" => Intervention::Result(block.clone()),
        "getblockhash" if params[0] != json!(0) => Intervention::Result(name.clone()),
        _ => Intervention::Pass,
    };
    let proxy = Proxy::start(&world.node.url(), trick).await;
    let source = Bitcoin::new(world.config(Access::Core, &[&proxy.url])).unwrap();
    let answer = source.blocks(height, height, &world.watched).await;
    assert!(matches!(&answer, Err(SourceError::InvalidResponse(why)) if why.contains("work")), "{answer:?}");
}

/// A public server with a quota nobody wrote down is read to the end, at its pace.
#[tokio::test]
async fn a_server_that_spares_its_answers_is_caught_up_with() {
    let world = World::start().await;
    let height = paid(&world).await;
    world.node.mine(15).await.unwrap();
    let truth = read(&world.bitcoin(Access::Core), height, height + 15, &world.watched).await;
    world.esplora.set_behaviour(Behaviour::RateLimited);
    let sparing = world.bitcoin(Access::Esplora);
    assert_eq!(read(&sparing, height, height + 15, &world.watched).await, truth);
}

#[tokio::test]
async fn what_was_answered_is_kept_when_the_rest_was_not() {
    let world = World::start().await;
    let height = paid(&world).await;
    world.node.mine(15).await.unwrap();
    let busy = move |method: &str, params: &Value| {
        let far = method == "getblockhash" && params[0].as_u64() > Some(height + 4);
        if far { Intervention::Error(-32603, "work queue depth exceeded") } else { Intervention::Pass }
    };
    let proxy = Proxy::start(&world.node.url(), busy).await;
    let source = Bitcoin::new(world.config(Access::Core, &[&proxy.url])).unwrap();
    let blocks = source.blocks(height, height + 15, &world.watched).await.unwrap();
    assert_eq!(blocks.len(), 5);
    let answer = source.blocks(height + 5, height + 15, &world.watched).await;
    assert!(matches!(answer, Err(SourceError::Unavailable(_))), "{answer:?}");
}
