// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// Pays many receivers in one transaction, the way exchanges and payroll tools do.
contract Batcher {
    error LengthsDiffer();
    error NotPaid(address to);
    error Undone();

    receive() external payable {}

    /// Moves tokens of the caller, who has approved this contract; copes with tokens that return nothing.
    function payToken(address token, address[] calldata to, uint256[] calldata value) external {
        if (to.length != value.length) revert LengthsDiffer();
        for (uint256 i = 0; i < to.length; i++) {
            (bool done, bytes memory said) = token.call(
                abi.encodeWithSignature("transferFrom(address,address,uint256)", msg.sender, to[i], value[i])
            );
            if (!done || (said.length > 0 && !abi.decode(said, (bool)))) revert NotPaid(to[i]);
        }
    }

    /// Native payments that leave no log: only a trace shows them. What is left over goes back to the caller.
    function payEther(address[] calldata to, uint256[] calldata value) public payable {
        if (to.length != value.length) revert LengthsDiffer();
        for (uint256 i = 0; i < to.length; i++) send(to[i], value[i]);
        send(msg.sender, address(this).balance);
    }

    /// The same payments inside a call that reverts: a trace shows them all, the transaction succeeds, nobody is paid.
    function payEtherThroughRevert(address[] calldata to, uint256[] calldata value) external payable {
        try this.payAndUndo(to, value) {} catch {}
        send(msg.sender, address(this).balance);
    }

    function payAndUndo(address[] calldata to, uint256[] calldata value) external {
        for (uint256 i = 0; i < to.length; i++) send(to[i], value[i]);
        revert Undone();
    }

    /// Pays by the death of a contract, which no receiver can refuse and which is no call in a trace.
    function payByDestruct(address payable to) external payable {
        new Bomb{value: msg.value}(to);
    }

    function send(address to, uint256 value) private {
        if (value == 0) return;
        (bool done, ) = to.call{value: value}("");
        if (!done) revert NotPaid(to);
    }
}

contract Bomb {
    constructor(address payable to) payable {
        selfdestruct(to);
    }
}
