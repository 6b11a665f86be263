use crate::tokens::{self, Token};
use clock::Instant;
use db::{Error, Tx, row};
use ids::{MerchantId, Mode, Shop, UserId};

const NOW: Instant = Instant(1_770_811_200_000);

async fn insert_shop_with_user(tx: &mut Tx, slug: &'static str) -> Result<(Shop, UserId), Error> {
    let merchant = row!(
        tx,
        "insert into merchants (public_id, slug, name, created_at) values ($1, $1, $1, 0) returning id",
        slug
    )?;
    let shop = Shop { merchant: merchant.unwrap().get::<MerchantId>("id")?, mode: Mode::Test };
    let user = row!(
        tx,
        "insert into users (public_id, merchant_id, mode, name, state, created_at)
         values ($1, $2, 'test', 'ann', 'active', 0) returning id",
        slug,
        shop.merchant
    )?;
    Ok((shop, user.unwrap().get("id")?))
}

#[test]
fn a_token_has_its_prefix_and_256_random_bits() {
    let (a, b) = (Token::generate(&mut rand::rng()), Token::generate(&mut rand::rng()));
    assert!(a.reveal_token().starts_with("ut_") && a.reveal_token().len() == 67);
    assert_ne!(a.reveal_token(), b.reveal_token());
}

db::both! {
    async fn a_token_opens_its_own_shop_until_it_ends(db: Db) {
        let found = db.write::<_, Error, _>("test", |tx| Box::pin(async move {
            let (shop, user) = insert_shop_with_user(tx, "one").await?;
            let (other, _) = insert_shop_with_user(tx, "two").await?;
            let (token, brief) = (Token::generate(&mut rand::rng()), Token::generate(&mut rand::rng()));
            tokens::store_token_hash(tx, NOW, user, &token, None).await?;
            tokens::store_token_hash(tx, NOW, user, &brief, Some(NOW.plus_seconds(60))).await?;

            let mut found = Vec::new();
            found.push(tokens::find_active_user_of_valid_token(tx, NOW, shop, token.reveal_token()).await? == Some(user));
            found.push(tokens::find_active_user_of_valid_token(tx, NOW, other, token.reveal_token()).await?.is_none());
            found.push(tokens::find_active_user_of_valid_token(tx, NOW, Shop { mode: Mode::Live, ..shop }, token.reveal_token()).await?.is_none());
            found.push(tokens::find_active_user_of_valid_token(tx, NOW.plus_seconds(59), shop, brief.reveal_token()).await? == Some(user));
            found.push(tokens::find_active_user_of_valid_token(tx, NOW.plus_seconds(60), shop, brief.reveal_token()).await?.is_none());
            for wrong in ["", "ut_", &token.reveal_token()[1..], &token.reveal_token().to_uppercase(), &"u".repeat(100_000)] {
                found.push(tokens::find_active_user_of_valid_token(tx, NOW, shop, wrong).await?.is_none());
            }
            found.push(tokens::revoke_token(tx, NOW, token.reveal_token()).await?);
            found.push(!tokens::revoke_token(tx, NOW, token.reveal_token()).await?);
            found.push(tokens::find_active_user_of_valid_token(tx, NOW, shop, token.reveal_token()).await?.is_none());
            found.push(tokens::revoke_all_tokens_of_user(tx, NOW, user).await? == 1);
            Ok(found)
        })).await.unwrap();
        assert!(found.iter().all(|held| *held), "{found:?}");
    }
}
