// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// Pays many receivers in one transaction, as exchanges and payroll tools do.
contract Batcher {
    error LengthsDiffer();
    error NotPaid(address to);
    error Undone();

    receive() external payable {}

    /// Moves tokens of the caller, who must have approved this contract. Supports tokens that return no value.
    function payToken(address token, address[] calldata to, uint256[] calldata value) external {
        if (to.length != value.length) revert LengthsDiffer();
        for (uint256 i = 0; i < to.length; i++) {
            (bool done, bytes memory said) = token.call(
                abi.encodeWithSignature("transferFrom(address,address,uint256)", msg.sender, to[i], value[i])
            );
            if (!done || (said.length > 0 && !abi.decode(said, (bool)))) revert NotPaid(to[i]);
        }
    }

    /// Makes native payments, which emit no log and are visible only in a trace. Returns the rest to the caller.
    function payEther(address[] calldata to, uint256[] calldata value) public payable {
        if (to.length != value.length) revert LengthsDiffer();
        for (uint256 i = 0; i < to.length; i++) send(to[i], value[i]);
        send(msg.sender, address(this).balance);
    }

    /// Makes the same payments inside a call that reverts. The transaction succeeds and its trace contains the payments, but
    /// no receiver is paid.
    function payEtherThroughRevert(address[] calldata to, uint256[] calldata value) external payable {
        try this.payAndUndo(to, value) {} catch {}
        send(msg.sender, address(this).balance);
    }

    function payAndUndo(address[] calldata to, uint256[] calldata value) external {
        for (uint256 i = 0; i < to.length; i++) send(to[i], value[i]);
        revert Undone();
    }

    /// Pays through SELFDESTRUCT, which no receiver can refuse and which a trace does not show as a call.
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
