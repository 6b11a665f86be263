// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// A fake USDT that emits logs of transfers that did not happen. It deceives software that trusts the symbol of a token, or
/// logs of any contract or of any format.
contract FakeToken {
    string public constant name = "Tether USD";
    string public constant symbol = "USDT";
    uint8 public constant decimals = 6;

    mapping(address => uint256) public balanceOf;

    event Transfer(address indexed from, address indexed to, uint256 value);

    error Undone();

    /// Emits a log without a transfer. With a value of zero it is an address poisoning attack.
    function phantom(address from, address to, uint256 value) public {
        emit Transfer(from, to, value);
    }

    function phantoms(address from, address to, uint256 value, uint256 count) external {
        for (uint256 i = 0; i < count; i++) phantom(from, to, value);
    }

    /// Returns true without moving tokens or emitting a log.
    function transfer(address, uint256) external pure returns (bool) {
        return true;
    }

    /// Emits a log in an inner call that reverts. The transaction succeeds without the log.
    function reverted(address from, address to, uint256 value) external {
        try this.announceAndUndo(from, to, value) {} catch {}
    }

    function announceAndUndo(address from, address to, uint256 value) external {
        emit Transfer(from, to, value);
        revert Undone();
    }

    /// Emits logs with the topic of Transfer that are not ERC-20 transfers: the value indexed as in ERC-721, nothing indexed,
    /// no data, data that are too short, and data that are too long.
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
