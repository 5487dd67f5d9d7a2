// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAssets} from "../src/interfaces/IAssets.sol";
import {IAudits, IChallenges, IPanels} from "../src/interfaces/IAudits.sol";
import {IClock} from "../src/interfaces/IClock.sol";
import {Asset, Config, IDeployment} from "../src/interfaces/IDeployment.sol";
import {ILedger} from "../src/interfaces/ILedger.sol";
import {IClosing, IMarket} from "../src/interfaces/IMarket.sol";
import {IOperators} from "../src/interfaces/IOperators.sol";
import {Account, Role} from "../src/libraries/Accounts.sol";
import {Terms} from "../src/libraries/Jobs.sol";
import {Test} from "./Vm.sol";

/// @notice All that the market shows. Tests know it by this, and deploy its optimized code.
interface Market is
    IDeployment,
    IClock,
    IAssets,
    IOperators,
    ILedger,
    IMarket,
    IClosing,
    IAudits,
    IPanels,
    IChallenges
{
    function multicall(bytes[] calldata data) external returns (bytes[] memory results);
}

/// @notice A deployed market and its people.
/// @dev They are operators, known by their numbers. Each has a cold key that owns, a hot key that works, and an
/// address that is paid; no key of one is a key of another.
abstract contract People is Test {
    uint256 internal constant PROVIDER = 1;
    uint256 internal constant RIVAL = 2; // another provider
    uint256 internal constant AUDITOR = 3;
    uint256 internal constant COLLEAGUE = 4; // another auditor

    address internal constant REQUESTER = address(0x1001);
    address internal constant STRANGER = address(0x1002);
    address internal constant CHALLENGER = address(0x1003);
    address internal constant GUARDIAN = address(0x1004);
    address internal constant JUDGE = address(0x1005);

    uint256 internal constant WEALTH = 1_000 ether; // of everybody, to begin with
    uint256 internal constant DEPOSIT = 24 ether; // what each operator has staked to begin with
    uint256 internal constant TICKETS = 4; // of each auditor to begin with
    uint96 internal constant TICKET_STAKE = 6 ether;
    uint80 internal constant FEE = 0.1 ether; // of an audit
    uint80 internal constant STAKE = 6 ether; // for a shard
    uint64 internal constant STEPS = 4; // of a segment
    bytes32 internal constant MIX_HASH = "mix hash";

    // The terms and the schedule of the jobs that are posted; tests change them.
    uint64 internal rounds = 2;
    uint64 internal slots = 2;
    uint64 internal segments = 8;
    uint16 internal samples = 3;
    uint80 internal price = 1 ether; // STAKE allows 1.26 ether
    uint16 internal floorBps = 10_000;
    uint32 internal rampTime;
    uint32 internal roundTime;
    uint16 internal quorum = 2;
    uint40 internal jobTime = 10_000; // until the deadline
    uint8 internal asset;

    Market internal market;

    function setUp() public virtual {
        vm.warp(1_800_000_000);
        vm.roll(1_000);
        market = _deploy(_config(), _assets());
        address[5] memory people = [REQUESTER, STRANGER, CHALLENGER, GUARDIAN, JUDGE];
        for (uint256 i = 0; i < people.length; ++i) {
            vm.deal(people[i], WEALTH);
        }
        for (uint256 operator = PROVIDER; operator <= COLLEAGUE; ++operator) {
            assertEq(_register(), operator);
        }
        _stake(PROVIDER, DEPOSIT);
        _stake(RIVAL, DEPOSIT);
        _buyTickets(AUDITOR, TICKETS);
        _buyTickets(COLLEAGUE, TICKETS);
    }

    function _deploy(Config memory constants, Asset[] memory assets) internal returns (Market) {
        return Market(vm.deployCode("src/Market.sol:Market", abi.encode(constants, assets)));
    }

    function _config() internal view virtual returns (Config memory) {
        return Config({
            drawDistance: 8,
            auditTime: 100,
            declineTime: 20,
            graceTime: 150,
            voteTime: 200,
            responseTime: 400,
            rulingTime: 300,
            challengeWindow: 2_000,
            maxLeaseTime: 1_000,
            thawTime: 2_700,
            pauseLimit: 500,
            pauseInterval: 2_000,
            expiryFeeBps: 100,
            withdrawFeeBps: 200,
            voidFeeBps: 500,
            silenceFeeBps: 350,
            slashShareBps: 3_000,
            bondBps: 1_000,
            guardian: GUARDIAN,
            judge: JUDGE
        });
    }

    function _assets() internal virtual returns (Asset[] memory assets) {
        assets = new Asset[](1);
        assets[0] = Asset(address(0), TICKET_STAKE);
    }

    function _terms() internal view returns (Terms memory) {
        return Terms({
            asset: asset,
            pricePerShard: price,
            floorBps: floorBps,
            rampTime: rampTime,
            auditFee: FEE,
            stakePerShard: STAKE,
            poisonValue: 0,
            leaseTime: 600,
            roundTime: roundTime,
            quorum: quorum,
            samples: samples,
            deadline: uint40(market.time() + jobTime)
        });
    }

    function _spec() internal view returns (bytes32[8] memory leaves) {
        for (uint256 i = 0; i < 8; ++i) {
            leaves[i] = keccak256(abi.encode("spec", i));
        }
        leaves[5] = bytes32(abi.encodePacked(rounds, slots, segments, STEPS));
    }

    function _escrow() internal view returns (uint256) {
        return uint256(rounds) * slots * (uint256(price) + FEE);
    }

    // People

    function _owner(uint256 operator) internal pure returns (address) {
        return address(uint160(0xc01d_0000 + operator));
    }

    function _worker(uint256 operator) internal pure returns (address) {
        return address(uint160(0x4071_0000 + operator));
    }

    function _payout(uint256 operator) internal pure returns (address) {
        return address(uint160(0xbaa1_0000 + operator));
    }

    /// @notice The next operator, whose owner does not work itself.
    function _register() internal returns (uint256 operator) {
        operator = market.operatorCount() + 1;
        address owner = _owner(operator);
        vm.deal(owner, WEALTH);
        vm.prank(owner);
        market.register(_payout(operator));
        vm.prank(owner);
        market.setWorker(operator, _worker(operator), true);
        vm.prank(owner);
        market.setWorker(operator, owner, false);
    }

    function _stake(uint256 operator, uint256 amount) internal {
        uint256 value = _value(amount);
        vm.prank(_owner(operator));
        market.stake{value: value}(operator, asset, amount);
    }

    function _buyTickets(uint256 operator, uint256 count) internal {
        uint256 amount = count * market.getAsset(asset).ticketStake;
        uint256 value = _value(amount);
        vm.prank(_owner(operator));
        market.buyTickets{value: value}(operator, asset, count);
    }

    /// @notice What a call that pays `amount` carries.
    function _value(uint256 amount) internal view returns (uint256) {
        return market.getAsset(asset).token == address(0) ? amount : 0;
    }

    /// @notice The account of an operator that provides (the first two) or audits (the others).
    function _account(uint256 operator) internal view returns (Account memory) {
        return market.getAccount(operator, operator < AUDITOR ? Role.Provider : Role.Auditor, asset);
    }

    /// @notice Require what one of the people to begin with has: staked, locked and earned.
    function assertAccount(uint256 operator, uint256 staked, uint256 locked, uint256 earned) internal view {
        Account memory account = _account(operator);
        assertEq(account.staked, staked);
        assertEq(account.locked, locked);
        assertEq(account.earned, earned);
    }
}
