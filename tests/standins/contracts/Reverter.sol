// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// A receiver that accepts or refuses payments, depending on its mode.
contract Reverter {
    /// 0 refuses, 1 accepts, 2 accepts but needs more than the 21,000 gas of a plain payment, 3 uses all gas.
    uint8 public mode;
    uint256 private counter;

    error Refused();
    event Received(address from, uint256 value);

    function set(uint8 to) external {
        mode = to;
    }

    receive() external payable {
        if (mode == 0) revert Refused();
        if (mode == 2) {
            counter++;
            emit Received(msg.sender, msg.value);
        }
        while (mode == 3) counter++;
    }
}
