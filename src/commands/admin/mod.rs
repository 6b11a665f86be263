//! The commands `settled admin …`, with which an operator creates, changes and lists records. Functions of the crates
//! `shop`, `money` and `records` make each change, and add it to the audit log in the same database transaction.

pub mod chains;
pub mod coupons;
mod csv;
pub mod deposits;
mod import_file;
pub mod mails;
pub mod merchants;
pub mod orders;
pub mod owner;
mod parse;
pub mod products;
pub mod reviews;
pub mod stock;
pub mod stock_import;
pub mod users;

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::commands::command_error::CommandError;
use crate::commands::context::Context;
use crate::commands::installation::Installation;
use crate::commands::operation::{self, Operation};
use crate::commands::output::print_line_or_exit;
use owner::Owner;

/// The subcommand for one type of records, and the installation on which it works.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    installation: Installation,
    #[command(subcommand)]
    resource: Resource,
}

#[derive(Subcommand)]
enum Resource {
    /// Manage merchants, the owners of shops.
    #[command(subcommand)]
    Merchant(merchants::Command),
    /// Manage users: buyers with a balance.
    #[command(subcommand)]
    User(users::Command),
    /// Manage the access tokens of users.
    #[command(subcommand)]
    Token(users::TokenCommand),
    /// Credit a user's balance from the operator's equity.
    Credit(users::CreditUser),
    /// Manage products.
    #[command(subcommand)]
    Product(products::Command),
    /// Manage stock: lines of text, each of which is delivered once.
    #[command(subcommand)]
    Stock(stock::Command),
    /// Manage coupons: codes that give a discount.
    #[command(subcommand)]
    Coupon(coupons::Command),
    /// Show orders, cancel them, and confirm external payments.
    #[command(subcommand)]
    Order(orders::Command),
    /// Show and close reviews: cases in which an operator must decide.
    #[command(subcommand)]
    Review(reviews::Command),
    /// Decide about deposits that endpoints contradict.
    #[command(subcommand)]
    Deposit(deposits::Command),
    /// Manage the mails to buyers.
    #[command(subcommand)]
    Mail(mails::Command),
    /// Manage the followed chains.
    #[command(subcommand)]
    Chain(chains::Command),
}

/// An operation that an operator requests, with its arguments.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdminOperation {
    /// Lists all merchants of the installation.
    ListMerchants,
    /// Adds a merchant.
    CreateMerchant(merchants::Create),
    /// Adds a user.
    CreateUser(users::Create),
    /// Disables or enables a user.
    SetUser(users::Set),
    /// Lists all users of a merchant with their balances.
    ListUsers(Owner),
    /// Issues an access token for a user.
    IssueToken(users::Issue),
    /// Revokes all access tokens of a user.
    RevokeTokens(users::Revoke),
    /// Credits a user's balance from the operator's equity.
    Credit(users::CreditUser),
    /// Creates or changes products in one database transaction: either all of them or, when one fails, none.
    PutProducts(Owner, Vec<products::ProductInput>),
    /// Lists all products of a merchant.
    ListProducts(Owner),
    /// Activates or deactivates a product.
    SetProduct(products::Set),
    /// Lists the stock items of a product, without their texts.
    ListStock(stock::List),
    /// Withdraws a stock item from sale permanently.
    WithdrawStock(stock::Withdraw),
    /// Creates coupons in one database transaction: either all of them or, when one fails, none.
    PutCoupons(Owner, Vec<coupons::CouponInput>),
    /// Lists all active coupons of a merchant.
    ListCoupons(Owner),
    /// Deactivates a coupon.
    DeactivateCoupon(coupons::Deactivate),
    /// Describes an order without its delivered items.
    ShowOrder(orders::OrderName),
    /// Cancels an unpaid order.
    CancelOrder(orders::OrderName),
    /// Marks an external payment (Alipay, WeChat Pay) of an order as received.
    ConfirmOrder(orders::OrderName),
    /// Lists the open reviews, oldest first.
    ListReviews(reviews::List),
    /// Closes a review with the operator's decision.
    CloseReview(reviews::Close),
    /// Rejects a deposit that an endpoint contradicts.
    RejectDeposit(deposits::Reject),
    /// Queues all parked mails again.
    RetryMails,
    /// Resumes a halted chain.
    ResumeChain(chains::Resume),
    /// Lists the unspent outputs of the deposit addresses on a Bitcoin chain.
    ListUnspent(chains::ListUnspent),
}

/// Executes one command and prints its output. The daemon executes the operation when one runs; otherwise this process
/// does. An import of stock takes several operations.
pub async fn execute_admin_command_and_print(args: Args) -> Result<(), CommandError> {
    let operation = match args.resource {
        Resource::Merchant(command) => command.into_operation(),
        Resource::User(command) => command.into_operation(),
        Resource::Token(command) => command.into_operation(),
        Resource::Credit(credit) => AdminOperation::Credit(credit),
        Resource::Product(command) => command.into_operation_reading_import_file()?,
        Resource::Stock(command) => return stock::execute_stock_command_and_print(&args.installation, command).await,
        Resource::Coupon(command) => command.into_operation_reading_import_file()?,
        Resource::Order(command) => command.into_operation(),
        Resource::Review(command) => command.into_operation(),
        Resource::Deposit(command) => command.into_operation(),
        Resource::Mail(command) => command.into_operation(),
        Resource::Chain(command) => command.into_operation(),
    };
    print_line_or_exit(operation::execute_in_daemon_or_locally(&args.installation, operation).await?);
    Ok(())
}

impl Operation for AdminOperation {
    const NAME: &'static str = "admin";
    type Context = Context;
    type Output = String;

    async fn execute(self, context: &Context) -> Result<String, String> {
        execute_admin_operation(context, self).await
    }
}

/// Executes one operation in this process. The output and the error are texts for the operator.
pub async fn execute_admin_operation(context: &Context, operation: AdminOperation) -> Result<String, String> {
    match operation {
        AdminOperation::ListMerchants => merchants::list_merchants(context).await,
        AdminOperation::CreateMerchant(new) => merchants::create_merchant(context, new).await,
        AdminOperation::CreateUser(new) => users::create_user(context, new).await,
        AdminOperation::SetUser(set) => users::disable_or_enable_user(context, set).await,
        AdminOperation::ListUsers(owner) => users::list_users_with_balances(context, owner).await,
        AdminOperation::IssueToken(issue) => users::issue_access_token(context, issue).await,
        AdminOperation::RevokeTokens(revoke) => users::revoke_all_tokens(context, revoke).await,
        AdminOperation::Credit(credit) => users::credit_user(context, credit).await,
        AdminOperation::PutProducts(owner, products) => {
            products::create_or_change_products(context, owner, products).await
        }
        AdminOperation::ListProducts(owner) => products::list_products_with_prices(context, owner).await,
        AdminOperation::SetProduct(set) => products::activate_or_deactivate_product(context, set).await,
        AdminOperation::ListStock(list) => stock::list_stock_items_page(context, list).await,
        AdminOperation::WithdrawStock(withdraw) => stock::withdraw_stock_item(context, withdraw).await,
        AdminOperation::PutCoupons(owner, coupons) => coupons::create_coupons(context, owner, coupons).await,
        AdminOperation::ListCoupons(owner) => coupons::list_active_coupons(context, owner).await,
        AdminOperation::DeactivateCoupon(deactivate) => coupons::deactivate_coupon(context, deactivate).await,
        AdminOperation::ShowOrder(name) => orders::describe_order_and_payment(context, name).await,
        AdminOperation::CancelOrder(name) => orders::cancel_unpaid_order(context, name).await,
        AdminOperation::ConfirmOrder(name) => orders::mark_external_payment_received(context, name).await,
        AdminOperation::ListReviews(list) => reviews::list_oldest_open_reviews(context, list).await,
        AdminOperation::CloseReview(close) => reviews::close_review(context, close).await,
        AdminOperation::RejectDeposit(reject) => deposits::reject_contradicted_deposit(context, reject).await,
        AdminOperation::RetryMails => mails::retry_parked_mails(context).await,
        AdminOperation::ResumeChain(resume) => chains::resume_halted_chain(context, resume).await,
        AdminOperation::ListUnspent(unspent) => chains::list_unspent_outputs_with_sum(context, unspent).await,
    }
}

/// The reason why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The request was refused. The text tells the operator why.
    #[error("{0}")]
    Refused(String),
    #[error("database: {0}")]
    Db(#[from] db::Error),
}

impl AdminError {
    fn from_refusal(cause: impl ToString) -> AdminError {
        AdminError::Refused(cause.to_string())
    }
}

impl From<AdminError> for String {
    fn from(error: AdminError) -> String {
        error.to_string()
    }
}
