// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// Claims to be USDT and announces transfers that nobody made. Whoever believes a symbol, or a log of any contract, or a
/// log of any shape, is paid with this.
contract FakeToken {
    string public constant name = "Tether USD";
    string public constant symbol = "USDT";
    uint8 public constant decimals = 6;

    mapping(address => uint256) public balanceOf;

    event Transfer(address indexed from, address indexed to, uint256 value);

    error Undone();

    /// A log without a movement; with a value of zero it is what address poisoning looks like.
    function phantom(address from, address to, uint256 value) public {
        emit Transfer(from, to, value);
    }

    function phantoms(address from, address to, uint256 value, uint256 count) external {
        for (uint256 i = 0; i < count; i++) phantom(from, to, value);
    }

    /// Says that it worked and does nothing at all, not even a log.
    function transfer(address, uint256) external pure returns (bool) {
        return true;
    }

    /// The transaction succeeds while the log is taken back with the inner call.
    function reverted(address from, address to, uint256 value) external {
        try this.announceAndUndo(from, to, value) {} catch {}
    }

    function announceAndUndo(address from, address to, uint256 value) external {
        emit Transfer(from, to, value);
        revert Undone();
    }

    /// Logs under the topic of Transfer that are no ERC-20 transfer: the value indexed as in ERC-721, nothing indexed,
    /// no data, data too short and data too long.
    function misshapen(address from, address to, uint256 value) external {
        bytes32 topic = Transfer.selector;
        assembly {
            mstore(0, value)
            mstore(32, value)
            log4(0, 0, topic, from, to, value)
            log1(0, 32, topic)
            log3(0, 0, topic, from, to)
            log3(0, 31, topic, from, to)
            log3(0, 64, topic, from, to)
        }
    }
}
